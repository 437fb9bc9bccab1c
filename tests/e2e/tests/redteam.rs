//! The red team finds nothing, and would find something.

use serde_json::Value;

use crate::support::installation::{Installation, is_root};

/// A user nobody else is.
const USER: u32 = 54_322;

/// Reasons for a void case that `docs/redteam.md` lists.
const LISTED: [&str; 5] = ["needs-root", "kernel-lacks", "not-enforced", "own-kernel", "no-images"];

async fn attacked(installation: &Installation) -> Value {
    let ran = installation.run(&["redteam", "--json"]).await;
    let report = ran.json();
    let wrong: Vec<_> = cases(&report)
        .filter(|case| case["verdict"] != "passed" && case["excuse"].is_null())
        .map(|case| format!("{} {}: {}", case["id"], case["verdict"], case["reasons"]))
        .collect();
    assert!(wrong.is_empty(), "{}\nmissing: {}", wrong.join("\n"), report["missing"]);
    ran.expect(0);
    report
}

fn cases(report: &Value) -> impl Iterator<Item = &Value> {
    let backends = report["backends"].as_array().into_iter().flatten();
    backends.flat_map(|backend| backend["cases"].as_array().into_iter().flatten())
}

fn assert_sound(report: &Value, mode: &str) {
    assert_eq!(report["schema"], 1);
    assert_eq!(report["green"], true);
    let backend = &report["backends"][0];
    assert_eq!(
        (&backend["backend"], &backend["mode"]),
        (&"native".into(), &mode.into())
    );
    assert_eq!(backend["left_out"], 0);
    assert!(cases(report).count() >= 97, "{}", cases(report).count());
    for case in cases(report) {
        if let Some(excuse) = case["excuse"].as_str() {
            assert!(LISTED.contains(&excuse), "{excuse} is not listed");
            continue;
        }
        let controls = case["control"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|c| c["got"] == true)
            .count();
        let sightings = case["control_host"].as_array().map_or(0, Vec::len);
        assert!(controls + sightings > 0, "{} passed without a control", case["id"]);
    }
    let ours = backend["score"]["answered"].as_u64().unwrap();
    let score = |name: &str| {
        let all = report["surface"].as_array().into_iter().flatten();
        all.into_iter().find(|score| score["name"] == name).unwrap().clone()
    };
    let host = score("unconfined")["answered"].as_u64().unwrap();
    assert!(
        host > 20 && ours < host / 2,
        "ours {ours}, this host {host}: the measure measures nothing"
    );
    for peer in report["surface"].as_array().into_iter().flatten() {
        let measured = peer["missing"].is_null();
        let theirs = peer["answered"].as_u64().unwrap();
        assert!(!measured || ours <= theirs, "{}: {theirs}, ours {ours}", peer["name"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_fails_and_every_control_works() {
    let installation = Installation::bare();
    let report = attacked(&installation).await;
    assert_sound(&report, if is_root() { "root" } else { "rootless" });
    installation.assert_untouched();
    if is_root() {
        let void: Vec<_> = cases(&report).filter(|case| case["verdict"] == "void").collect();
        assert!(void.iter().all(|case| case["excuse"] != "needs-root"), "{void:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_an_ordinary_user() {
    let mut installation = Installation::bare();
    // When the tests run as root they become somebody else; otherwise they already are.
    if is_root() {
        installation.belongs_to(USER);
    }
    let report = attacked(&installation).await;
    assert_sound(&report, "rootless");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_said_and_fails() {
    let installation = Installation::bare();
    let ran = installation.run(&["redteam", "--backend", "nowhere"]).await;
    ran.expect(2).says("there is no backend 'nowhere'");
}
