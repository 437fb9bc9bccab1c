//! What an attack saw, one line each.

use std::io::{self, Write as _};

use serde_json::json;

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) errno: Option<i32>,
    pub(crate) why: String,
}

/// An attempt: what it got, or why it got nothing.
pub(crate) type Outcome = Result<String, Refusal>;

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            why: error.to_string(),
        }
    }
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        io::Error::from_raw_os_error(errno).into()
    }
}

/// An attempt that failed for a reason without a number.
pub(crate) fn refused(why: impl Into<String>) -> Outcome {
    Err(Refusal {
        errno: None,
        why: why.into(),
    })
}

fn line(value: &serde_json::Value) {
    let mut out = io::stdout().lock();
    // Whoever listens may be gone; then nobody needs to know.
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Tells one attempt.
pub(crate) fn attempt(name: &str, outcome: Outcome) {
    line(&match outcome {
        Ok(what) => json!({ "name": name, "got": true, "why": what }),
        Err(Refusal { errno, why }) => json!({ "name": name, "got": false, "why": why, "errno": errno }),
    });
}

/// Tells one attempt made in several places: it succeeded if one did, and otherwise the last
/// refusal speaks for all.
pub(crate) fn any(name: &str, outcomes: impl IntoIterator<Item = Outcome>) {
    let mut last = refused("there was nothing to try it on");
    for outcome in outcomes {
        let got = outcome.is_ok();
        last = outcome;
        if got {
            break;
        }
    }
    attempt(name, last);
}

/// Tells a number the red team judges.
pub(crate) fn count(name: &str, number: u64) {
    line(&json!({ "count": name, "number": number }));
}

/// Says that a process that stays is in place.
pub(crate) fn ready() {
    line(&json!({ "ready": true }));
}

/// Says that the attack was carried out to its end.
pub(crate) fn done() {
    line(&json!({ "done": true }));
}
