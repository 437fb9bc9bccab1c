use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use stockade_ports::sandbox::{MEASURED_INSIDE, Witness};

use super::*;

struct Canary;

impl Witness for Canary {
    fn addresses(&self) -> Vec<SocketAddr> {
        vec!["127.0.0.1:4567".parse().expect("address")]
    }
    fn abstract_socket(&self) -> Option<String> {
        Some("canary".to_owned())
    }
    fn hits(&self) -> u64 {
        0
    }
}

struct Case {
    observed: Observed,
    in_force: Vec<(&'static str, u64)>,
    plan: ProbePlan,
}

const LIMITS: SandboxLimits = SandboxLimits {
    memory_bytes: 1 << 30,
    pids: 100,
    cpu_millis: 2000,
    disk_bytes: 64 << 20,
    io_bytes_per_second: Some(1 << 20),
};

/// A sandbox as it should be.
fn good() -> Case {
    let status = [
        ("Uid", "1000 1000 1000 1000"),
        ("Gid", "1000 1000 1000 1000"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ];
    Case {
        observed: Observed {
            interfaces: Some(vec!["lo".into()]),
            tcp: vec![Reached::Closed, Reached::Answered("HTTP/1.1 403 Forbidden\r\n".into())],
            name: Some(Resolved::Code { code: 5, answers: 0 }),
            canaries: vec![Reached::Refused(libc::ECONNRESET)],
            abstract_socket: Some(Reached::Refused(libc::ECONNREFUSED)),
            status: status.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            no_new_privs: true,
            rlimits: BTreeMap::from([("nproc".to_owned(), (100, 100))]),
            disks: BTreeMap::from([("/tmp".to_owned(), 64 << 20)]),
            calls: (0..CALLS).map(|n| (format!("call-{n}"), libc::EPERM)).collect(),
            landlock: Some(Ok(7)),
            micros: 1,
        },
        in_force: vec![("memory", 1 << 30), ("cpu", 2000), ("pids", 100), ("io", 1 << 20)],
        plan: ProbePlan::standard(Some(Arc::new(Canary))),
    }
}

/// Names of the checks that fail, with what was seen.
fn failed(case: &Case) -> Vec<(&'static str, String)> {
    let enforced = ["memory", "pids", "cpu", "disk", "io"].map(str::to_owned);
    let seen = Seen {
        observed: &case.observed,
        limits: &LIMITS,
        enforced: &enforced,
        in_force: &case.in_force,
    };
    let measurement = judge(&seen, &case.plan);
    for name in MEASURED_INSIDE {
        assert!(measurement.checks.iter().any(|check| check.name == name), "{name}");
    }
    let failed = measurement.checks.into_iter().filter(|check| !check.ok);
    failed.map(|check| (check.name, check.seen)).collect()
}

#[track_caller]
fn fails(check: &str, with: &str, spoil: impl FnOnce(&mut Case)) {
    let mut case = good();
    spoil(&mut case);
    let failed = failed(&case);
    assert_eq!(failed.len(), 1, "{check} alone should fail: {failed:?}");
    assert_eq!(failed[0].0, check);
    assert!(failed[0].1.contains(with), "{with} in {failed:?}");
}

#[test]
fn a_good_sandbox_passes() {
    assert_eq!(failed(&good()), []);
    let mut own_kernel = good();
    for absent in ["CapAmb", "NoNewPrivs", "Seccomp"] {
        own_kernel.observed.status.remove(absent);
    }
    assert_eq!(failed(&own_kernel), [], "gVisor has no such fields");
    let mut silent = good();
    silent.observed.canaries = vec![Reached::Silent];
    assert_eq!(failed(&silent), [], "a canary nobody answers for is not reached");
}

#[test]
fn an_interface_or_none_at_all_is_seen() {
    fails("network.card", "eth0", |c| {
        c.observed.interfaces = Some(vec!["lo".into(), "eth0".into()])
    });
    fails("network.card", "no lo", |c| c.observed.interfaces = Some(Vec::new()));
    fails("network.card", "listed", |c| c.observed.interfaces = None);
}

#[test]
fn an_answer_or_silence_is_no_denial() {
    for answer in ["HTTP/1.0 200 OK", "hello", "HTTP/1.1 4030", "HTTP/1.1 403"] {
        let denied = answer == "HTTP/1.1 403";
        let mut case = good();
        case.observed.tcp[1] = Reached::Answered(answer.to_owned());
        assert_eq!(failed(&case).is_empty(), denied, "{answer}");
    }
    fails("egress.denied", "nobody serves", |c| {
        c.observed.tcp[0] = Reached::Silent
    });
    fails("egress.denied", "1 of 2", |c| drop(c.observed.tcp.pop()));
    for (name, with) in [
        (Some(Resolved::Code { code: 0, answers: 1 }), "code 0"),
        (Some(Resolved::Code { code: 0, answers: 0 }), "code 0"),
        (Some(Resolved::Code { code: 2, answers: 0 }), "code 2"),
        (Some(Resolved::Silent), "no answer"),
        (Some(Resolved::Failed("x".into())), "could not"),
        (None, "was not"),
    ] {
        fails("egress.denied", with, |c| c.observed.name = name);
    }
}

#[test]
fn a_canary_that_answers_or_was_not_tried_is_seen() {
    fails("canary.unreachable", "hello", |c| {
        c.observed.canaries = vec![Reached::Answered("hello".into())];
    });
    fails("canary.unreachable", "0 of 1", |c| c.observed.canaries.clear());
    fails("canary.unreachable", "took", |c| {
        c.observed.abstract_socket = Some(Reached::Answered(String::new()));
    });
    fails("canary.unreachable", "not tried", |c| c.observed.abstract_socket = None);
}

#[test]
fn a_call_that_is_answered_is_seen() {
    for errno in [
        0,
        libc::EFAULT,
        libc::EINVAL,
        libc::EBADF,
        libc::ESRCH,
        libc::EAFNOSUPPORT,
    ] {
        fails("filter.installed", &format!("mount answered {errno}"), |c| {
            c.observed.calls.insert("mount".to_owned(), errno);
        });
    }
    let mut sockets = good();
    sockets.observed.calls.insert("socket-x".to_owned(), libc::EAFNOSUPPORT);
    assert_eq!(failed(&sockets), []);
    fails("filter.installed", "only", |c| c.observed.calls.clear());
    fails("filter.installed", "Seccomp is 0", |c| {
        c.observed.status.insert("Seccomp".to_owned(), "0".to_owned());
    });
}

#[test]
fn any_privilege_is_seen() {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        fails("privileges.none", set, |c| {
            c.observed.status.insert(set.to_owned(), "00000000a80425fb".to_owned());
        });
    }
    fails("privileges.none", "unknown", |c| {
        drop(c.observed.status.remove("CapBnd"))
    });
    fails("privileges.none", "no_new_privs", |c| c.observed.no_new_privs = false);
    fails("privileges.none", "Uid is 0", |c| {
        c.observed.status.insert("Uid".to_owned(), "0 0 0 0".to_owned());
    });
    fails("privileges.none", "1000 1000 0", |c| {
        c.observed
            .status
            .insert("Gid".to_owned(), "1000 1000 0 1000".to_owned());
    });
    fails("privileges.none", "Uid is unknown", |c| {
        drop(c.observed.status.remove("Uid"))
    });
}

#[test]
fn a_landlock_that_failed_is_seen_and_none_is_fine() {
    fails("landlock.in_force", "EIO", |c| {
        c.observed.landlock = Some(Err("EIO".into()))
    });
    fails("landlock.in_force", "not tried", |c| c.observed.landlock = None);
    let mut without = good();
    without.observed.landlock = Some(Ok(0));
    assert_eq!(failed(&without), []);
}

#[test]
fn a_limit_that_is_not_in_force_is_seen() {
    for name in ["memory", "cpu", "io"] {
        fails("limits.in_force", name, |c| {
            c.in_force.retain(|(known, _)| *known != name)
        });
        fails("limits.in_force", name, |c| {
            let limit = c.in_force.iter_mut().find(|(known, _)| *known == name);
            limit.expect("there").1 += 1;
        });
    }
    fails("limits.in_force", "pids", |c| {
        c.in_force.retain(|(name, _)| *name != "pids");
        c.observed.rlimits.clear();
    });
    fails("limits.in_force", "disk is not", |c| c.observed.disks.clear());
    fails("limits.in_force", "disk is", |c| {
        c.observed.disks.insert("/home/agent".to_owned(), 1 << 40);
    });
    let mut by_rlimit = good();
    by_rlimit.in_force.retain(|(name, _)| *name != "pids");
    assert_eq!(failed(&by_rlimit), [], "a limit seen from inside counts");
}
