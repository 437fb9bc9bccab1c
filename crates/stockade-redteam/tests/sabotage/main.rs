//! No list of attacks that cannot fail: sandboxes with something missing are attacked, and the
//! right cases have to notice.

mod double;

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _};

use double::{Double, Missing};
use stockade_redteam::{BackendReport, Canaries, Group, Parts, Verdict, attack};

async fn attacked(missing: Missing) -> BackendReport {
    let dir = tempfile::tempdir().unwrap();
    let canaries = Canaries::start().await.unwrap();
    let (store, spec) = double::run(&canaries);
    let parts = Parts {
        sandbox: Double::sandbox(missing, dir.path(), &canaries),
        egress: double::egress(),
        store,
        spec,
        rootfs: stockade_ports::RootFs::Host,
        images: double::images(),
        canaries,
        state_dir: dir.path().to_owned(),
    };
    let report = attack(parts, &|_| {}).await.unwrap();
    assert_eq!(report.left_out, 0);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "the red team leaves {left:?}");
    report
}

fn with(report: &BackendReport, verdict: Verdict) -> BTreeSet<&str> {
    let cases = report.cases.iter().filter(|case| case.verdict == verdict);
    cases.map(|case| case.id.as_str()).collect()
}

#[track_caller]
fn assert_all(report: &BackendReport, ids: &[&str], verdict: Verdict) {
    for id in ids {
        let case = report
            .cases
            .iter()
            .find(|case| case.id == *id)
            .expect("a case of that id");
        assert_eq!(
            case.verdict, verdict,
            "{id}: {:?}\ninside {:#?}\ncontrol {:#?}\nhost {:#?}\ncontrol {:#?}",
            case.reasons, case.inside, case.control, case.host, case.control_host
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_sandbox_nothing_passes() {
    let report = attacked(Missing::Everything).await;
    let mut passed = with(&report, Verdict::Passed);
    // A host's own hard limit on descriptors may stop this one.
    passed.remove("A-RX-10");
    // Where the kernel shares the processor between sessions (sched(7), autogroup), a neighbour in a
    // session of its own is not starved, sandbox or not. The case has its control outside.
    passed.remove("A-RX-03n");
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        // An ordinary user is denied much by the host itself.
        passed.clear();
    }
    assert!(passed.is_empty(), "{passed:?} pass without a sandbox");
    let failed = with(&report, Verdict::Failed).len();
    assert!(
        failed > report.cases.len() / 2,
        "{failed} of {} fail",
        report.cases.len()
    );
    assert!(!report.is_green());
}

/// Namespaces, no capabilities, and nothing else: a sandbox as many are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_filter_the_kernel_cases_fail_and_the_file_cases_pass() {
    let report = attacked(Missing::Filter).await;
    let kernel = ["A-PR-02", "A-FS-09", "A-PR-01", "A-EX-02", "A-PR-09", "A-EX-07"];
    assert_all(&report, &kernel, Verdict::Failed);
    let files = [
        "A-FS-01", "A-FS-01w", "A-FS-02", "A-FS-10", "A-FS-16", "A-FS-07", "A-PR-06", "A-PR-11", "A-NW-03",
    ];
    assert_all(&report, &files, Verdict::Passed);
    let limits = ["A-RX-01", "A-RX-02", "A-RX-04"];
    assert_all(&report, &limits, Verdict::Failed);
    assert!(report.score.answered > 20, "{:?}", report.score);
}

/// The same with the host's network: a boundary that stands open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_open_boundary_the_network_cases_fail() {
    let report = attacked(Missing::Boundary).await;
    let network = ["A-NW-01", "A-NW-03", "A-PR-11", "A-DN-01", "A-NW-21", "A-NW-05"];
    assert_all(&report, &network, Verdict::Failed);
    let hit = report.cases.iter().find(|case| case.id == "A-NW-01").unwrap();
    assert!(
        hit.host
            .iter()
            .any(|seen| seen.what == "connections at the servers" && !seen.ok)
    );
    let groups: BTreeSet<_> = report.cases.iter().map(|case| case.group.name()).collect();
    assert_eq!(groups.len(), Group::ALL.len());
}

/// A Guard that answers, dials and carries: everything a boundary is there to refuse gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_guard_that_forwards_everything_names_tls_and_credentials_fail() {
    let report = attacked(Missing::Judgement).await;
    let judged: Vec<_> = report
        .cases
        .iter()
        .filter(|case| case.inside.iter().any(|attempt| attempt.got) || case.host.iter().any(|seen| !seen.ok))
        .map(|case| case.id.as_str())
        .collect();
    let network = [
        "A-NW-04", "A-NW-05n", "A-NW-06", "A-NW-08", "A-NW-11", "A-NW-12", "A-NW-13", "A-NW-14", "A-NW-15",
    ];
    let names = [
        "A-DN-02", "A-DN-04", "A-DN-05", "A-DN-06", "A-DN-07", "A-DN-08", "A-DN-09", "A-DN-10",
    ];
    let tls = [
        "A-TL-01", "A-TL-02", "A-TL-03", "A-TL-03f", "A-TL-04", "A-TL-06", "A-TL-09", "A-TL-11",
    ];
    let credentials = ["A-CR-01", "A-CR-01e", "A-CR-01n", "A-CR-02", "A-CR-11", "A-CR-10"];
    for ids in [&network[..], &names, &tls, &credentials] {
        assert_all(&report, ids, Verdict::Failed);
    }
    // Nothing of the four groups passes where the Guard forwards everything, but those that are not the Guard's.
    let groups = [Group::Network, Group::Dns, Group::Tls, Group::Credentials];
    let mine = report.cases.iter().filter(|case| groups.contains(&case.group));
    let passed: Vec<_> = mine
        .filter(|case| case.verdict == Verdict::Passed)
        .map(|case| &case.id)
        .collect();
    assert!(passed.is_empty(), "{passed:?} pass, {judged:?} were noticed");
}
