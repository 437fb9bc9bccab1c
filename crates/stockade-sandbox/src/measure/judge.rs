//! What observations mean.

use std::fmt::Debug;

use stockade_domain::SandboxLimits;
use stockade_guest_proto::{Observed, Reached, Resolved};
use stockade_ports::sandbox::{Measurement, ProbePlan};

use crate::INSIDE_ID;

/// Fewest system calls a probe tries: one that tried less is not ours.
const CALLS: usize = 80;
/// What a name that may not be looked up is answered with (RFC 1035, 4.1.1).
const REFUSALS: [u8; 2] = [3, 5];

/// Everything that was seen.
pub(super) struct Seen<'s> {
    pub(super) observed: &'s Observed,
    pub(super) limits: &'s SandboxLimits,
    pub(super) enforced: &'s [String],
    pub(super) in_force: &'s [(&'static str, u64)],
}

/// Judges each check.
pub(super) fn judge(seen: &Seen<'_>, plan: &ProbePlan) -> Measurement {
    let observed = seen.observed;
    let mut measurement = Measurement::default();
    let mut note = |name, expected: &str, wrong: Vec<String>, fine: String| {
        let ok = wrong.is_empty();
        measurement.note(name, expected, if ok { fine } else { wrong.join(", ") }, ok);
    };
    let cards = network_card(observed);
    note("network.card", "no interface but lo", cards, "lo".to_owned());
    let wrong = denied(observed, plan);
    let fine = format!("{} attempts denied", observed.tcp.len() + 1);
    note("egress.denied", "every attempt denied", wrong, fine);
    let wrong = canaries(observed, plan);
    let fine = format!("no answer from {}", observed.canaries.len());
    note("canary.unreachable", "no answer from a canary", wrong, fine);
    let wrong = filter(observed);
    let fine = format!("{} calls refused", observed.calls.len());
    note("filter.installed", "every dangerous call refused", wrong, fine);
    let wrong = privileges(observed);
    note("privileges.none", "no privilege", wrong, "none".to_owned());
    let (wrong, fine) = landlock(observed);
    note(
        "landlock.in_force",
        "the kernel's Landlock, where it has one",
        wrong,
        fine,
    );
    let wrong = limits(seen);
    let fine = seen.enforced.join(", ");
    note("limits.in_force", "the limits of the specification", wrong, fine);
    measurement
}

fn network_card(observed: &Observed) -> Vec<String> {
    match &observed.interfaces {
        None => vec!["the interfaces could not be listed".to_owned()],
        Some(names) if names.iter().any(|name| name == "lo") => {
            names.iter().filter(|name| *name != "lo").cloned().collect()
        }
        Some(names) => vec![format!("no lo among {names:?}")],
    }
}

/// Why an attempt was not denied: somebody answered, or nobody was there to deny it.
fn not_denied(reached: &Reached) -> Option<String> {
    match reached {
        Reached::Refused(_) | Reached::Closed => None,
        Reached::Answered(text) if is_forbidden(text) => None,
        Reached::Answered(text) => Some(format!("answered {:?}", first_line(text))),
        Reached::Silent => Some("got no answer at all: nobody serves the boundary".to_owned()),
    }
}

/// `HTTP/1.0 403` and `HTTP/1.1 403` (RFC 9110, 15.5.4): the Guard's own words.
fn is_forbidden(text: &str) -> bool {
    let rest = text
        .strip_prefix("HTTP/1.0 ")
        .or_else(|| text.strip_prefix("HTTP/1.1 "));
    rest.is_some_and(|rest| rest.starts_with("403") && !rest[3..].starts_with(|c: char| c.is_ascii_digit()))
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(40).collect()
}

/// Pairs what was asked for with what happened; a missing outcome is wrong.
fn outcomes<'o, T: Debug>(asked: &[T], seen: &'o [Reached]) -> Result<Vec<(String, &'o Reached)>, Vec<String>> {
    if asked.len() != seen.len() {
        return Err(vec![format!("{} of {} were tried", seen.len(), asked.len())]);
    }
    let names = asked.iter().map(|target| format!("{target:?}"));
    Ok(names.zip(seen).collect())
}

fn denied(observed: &Observed, plan: &ProbePlan) -> Vec<String> {
    let pairs = match outcomes(&plan.denied, &observed.tcp) {
        Ok(pairs) => pairs,
        Err(wrong) => return wrong,
    };
    let mut wrong: Vec<_> = pairs
        .into_iter()
        .filter_map(|(target, reached)| Some(format!("{target} {}", not_denied(reached)?)))
        .collect();
    let name = &plan.denied_name;
    match &observed.name {
        Some(Resolved::Code { code, answers: 0 }) if REFUSALS.contains(code) => {}
        Some(Resolved::Code { code, answers }) => {
            wrong.push(format!("{name} resolved with code {code} and {answers} records"));
        }
        Some(Resolved::Failed(why)) => wrong.push(format!("{name} could not be asked for: {why}")),
        Some(Resolved::Silent) => wrong.push(format!("{name} got no answer: nobody serves the boundary")),
        None => wrong.push(format!("{name} was not asked for")),
    }
    wrong
}

/// For a canary silence is as good as a refusal: it is the host's own server that must
/// not be reached, by whatever means.
fn canaries(observed: &Observed, plan: &ProbePlan) -> Vec<String> {
    let Some(witness) = &plan.witness else {
        return Vec::new();
    };
    let mut wrong = match outcomes(&witness.addresses(), &observed.canaries) {
        Ok(pairs) => pairs
            .into_iter()
            .filter(|(_, reached)| **reached != Reached::Silent)
            .filter_map(|(target, reached)| Some(format!("{target} {}", not_denied(reached)?)))
            .collect(),
        Err(wrong) => wrong,
    };
    if let Some(name) = witness.abstract_socket() {
        match &observed.abstract_socket {
            Some(Reached::Refused(_)) => {}
            Some(_) => wrong.push(format!("the host's abstract socket {name} took the connection")),
            None => wrong.push(format!("the host's abstract socket {name} was not tried")),
        }
    }
    wrong
}

fn filter(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    if observed.calls.len() < CALLS {
        wrong.push(format!("only {} calls were tried", observed.calls.len()));
    }
    for (name, errno) in &observed.calls {
        if !is_refusal(name, *errno) {
            wrong.push(format!("{name} answered {errno}"));
        }
    }
    // A kernel of the sandbox's own may have no such field; then behaviour alone decides.
    if let Some(mode) = observed.status.get("Seccomp")
        && mode != "2"
    {
        wrong.push(format!("Seccomp is {mode}"));
    }
    wrong
}

/// Whether a call was turned away before anybody looked at what it asks for. The word of a
/// kernel that looked is EFAULT, EINVAL, EBADF, ESRCH or success.
fn is_refusal(name: &str, errno: i32) -> bool {
    let of_sockets = matches!(
        errno,
        libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EACCES
    );
    matches!(errno, libc::EPERM | libc::ENOSYS) || of_sockets && name.starts_with("socket-")
}

fn privileges(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    let field = |name: &str| observed.status.get(name).map(String::as_str);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match field(set) {
            Some(value) if !value.is_empty() && value.bytes().all(|b| b == b'0') => {}
            Some(value) => wrong.push(format!("{set} is {value}")),
            // gVisor has no ambient set.
            None if set == "CapAmb" => {}
            None => wrong.push(format!("{set} is unknown")),
        }
    }
    if !observed.no_new_privs || field("NoNewPrivs").is_some_and(|value| value != "1") {
        wrong.push("no_new_privs is not set".to_owned());
    }
    for ids in ["Uid", "Gid"] {
        let ours = INSIDE_ID.to_string();
        match field(ids) {
            Some(value) if !value.is_empty() && value.split(' ').all(|id| id == ours) => {}
            other => wrong.push(format!("{ids} is {}", other.unwrap_or("unknown"))),
        }
    }
    wrong
}

/// A second lock, where the kernel has one; it is not in every kernel.
fn landlock(observed: &Observed) -> (Vec<String>, String) {
    match &observed.landlock {
        Some(Ok(0)) => (Vec::new(), "the kernel has none".to_owned()),
        Some(Ok(version)) => (Vec::new(), format!("version {version}")),
        Some(Err(why)) => (vec![format!("it could not be put in force: {why}")], String::new()),
        None => (vec!["it was not tried".to_owned()], String::new()),
    }
}

/// Each limit that is said to be enforced, by the kernel's own account or as seen from inside.
fn limits(seen: &Seen<'_>) -> Vec<String> {
    let enforced = seen.enforced.iter();
    enforced.filter_map(|name| limit(seen, name).err()).collect()
}

fn limit(seen: &Seen<'_>, name: &str) -> Result<(), String> {
    let limits = seen.limits;
    let told = seen.in_force.iter().find(|(known, _)| *known == name);
    let told = told.map(|(_, value)| *value);
    let (wanted, in_force) = match name {
        "memory" => (limits.memory_bytes, told),
        "cpu" => (limits.cpu_millis, told),
        "pids" => {
            let nproc = seen.observed.rlimits.get("nproc").map(|(_, hard)| *hard);
            (limits.pids, told.into_iter().chain(nproc).min())
        }
        "disk" => (limits.disk_bytes, told.or_else(|| largest_disk(seen.observed))),
        "io" => match limits.io_bytes_per_second {
            None => return Ok(()),
            Some(wanted) => (wanted, told),
        },
        other => return Err(format!("{other} is not a limit anybody could measure")),
    };
    match in_force {
        None => Err(format!("{name} is not limited")),
        Some(0) => Err(format!("{name} is 0")),
        Some(value) if value > wanted => Err(format!("{name} is {value} and should be {wanted}")),
        Some(_) => Ok(()),
    }
}

fn largest_disk(observed: &Observed) -> Option<u64> {
    observed.disks.values().copied().max()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
