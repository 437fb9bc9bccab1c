//! The limits of a run's sandbox: told as an event when it runs into one, and named when the run
//! ends. A limit that was met ends no run by itself, except memory: a program that is refused a
//! process or a block of disk is told so, and its agent may find another way.

use std::{convert::Infallible, time::Duration};

use serde_json::json;
use stockade_domain::{EventType, Failure, FailureClass, NewEvent};
use stockade_gate::Gate;
use stockade_ports::LimitHit;

use crate::live::{Live, Place};

/// Pause between two looks. What is counted is not missed by looking late.
const LOOK: Duration = Duration::from_secs(1);

/// Tells of every limit met, as long as it is polled.
pub(crate) async fn watch(gate: &Gate, live: &Live, place: &Place) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        look(gate, live, place).await;
    }
}

/// Tells of limits that nobody has told of yet.
pub(crate) async fn look(gate: &Gate, live: &Live, place: &Place) {
    let fresh = live.met(place.sandbox.limits_hit().await);
    if fresh.is_empty() {
        return;
    }
    let events = fresh.iter().map(|hit| {
        let data = json!({ "limit": hit.limit, "value": hit.value });
        NewEvent::new(EventType::SandboxLimit, data)
    });
    // The run's end names it in any case.
    if let Err(error) = gate.record(&place.scope, events.collect()).await {
        tracing::debug!(run = %place.scope.run(), %error, "a limit that was met is not among the run's events");
    }
}

/// As results and failures spell them, which is as `sandbox.ready` does: `pids=64`.
pub(crate) fn spelled(hits: &[LimitHit]) -> Vec<String> {
    hits.iter().map(|hit| format!("{}={}", hit.limit, hit.value)).collect()
}

/// A failure with the limits in it that may have led to it.
pub(crate) fn named(failure: Failure, hits: &[LimitHit], traffic: &[String]) -> Failure {
    let failure = match traffic {
        [] => failure,
        met => Failure {
            message: format!(
                "{}; its traffic had met its limits: {}",
                failure.message,
                met.join(", ")
            ),
            ..failure
        },
    };
    if hits.is_empty() {
        return failure;
    }
    if let Some(memory) = hits.iter().find(|hit| hit.limit == "memory") {
        // The sandbox ended by it, whoever noticed first and however that was put.
        return Failure {
            class: FailureClass::Terminal,
            code: "memory_limit".to_owned(),
            message: format!(
                "the sandbox ended: its memory ran out, it used more than its limit of {} bytes",
                memory.value
            ),
            hint: Some("raise limits.memory_bytes of the environment, or let the agent use less at once".to_owned()),
        };
    }
    let keys: Vec<_> = hits.iter().map(|hit| format!("limits.{}", key(hit.limit))).collect();
    let way = format!("raise {} of the environment", keys.join(" and "));
    Failure {
        message: format!(
            "{}; before that its sandbox ran into its limits: {}",
            failure.message,
            spelled(hits).join(", ")
        ),
        hint: Some(match failure.hint {
            Some(hint) => format!("{hint}; or {way}"),
            None => way,
        }),
        ..failure
    }
}

/// The limit's key in an environment.
fn key(limit: &str) -> &str {
    match limit {
        "disk" => "disk_bytes",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIDS: LimitHit = LimitHit {
        limit: "pids",
        value: 64,
    };
    const MEMORY: LimitHit = LimitHit {
        limit: "memory",
        value: 1 << 20,
    };

    #[test]
    fn a_failure_without_a_limit_stays_as_it_is() {
        let failure = Failure::unknown("agent_gone", "it went");
        assert_eq!(named(failure.clone(), &[], &[]), failure);
    }

    #[test]
    fn a_limit_is_added_to_what_is_known_and_the_end_of_memory_is_the_reason() {
        let failure = Failure::terminal("inactive", "no sign of life").with_hint("wait longer");
        let with = named(failure.clone(), &[PIDS], &["env.traffic.requests=3".to_owned()]);
        assert_eq!((with.class, with.code.as_str()), (FailureClass::Terminal, "inactive"));
        assert!(
            with.message.starts_with("no sign of life; ")
                && with.message.contains("pids=64")
                && with.message.contains("env.traffic.requests=3"),
            "{with}"
        );
        let hint = with.hint.expect("a way out");
        assert!(
            hint.starts_with("wait longer; or ") && hint.contains("limits.pids"),
            "{hint}"
        );
        let with = named(Failure::unknown("sandbox_gone", "gone"), &[PIDS, MEMORY], &[]);
        assert_eq!(
            (with.class, with.code.as_str()),
            (FailureClass::Terminal, "memory_limit")
        );
        assert!(with.message.contains("1048576"), "{with}");
    }
}
