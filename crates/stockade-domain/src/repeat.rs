//! Loop detection: the same tool with the same input, again and again, without progress.
//!
//! Running the tests after every edit is work; running them three times with nothing new
//! in between is a loop. So an action counts as a repetition only since the last action
//! that the run had not tried before.

use std::collections::HashSet;

use crate::{ActionKind, Digest};

/// How often, counting this time, `next` has been asked since something new was tried.
///
/// `history` holds the digests of the run's earlier tool and permission actions, oldest
/// first, counted since a person last approved a repetition.
pub fn repetitions(history: &[Digest], next: Digest) -> u32 {
    let mut seen = HashSet::new();
    let mut since_new = 0u32;
    for digest in history {
        if seen.insert(*digest) {
            since_new = u32::from(*digest == next);
        } else if *digest == next {
            since_new += 1;
        }
    }
    since_new + 1
}

/// Whether actions of this kind are watched for loops.
///
/// Connections and model calls repeat by nature; budgets bound those.
pub fn is_watched(kind: ActionKind) -> bool {
    matches!(kind, ActionKind::Tool | ActionKind::Permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Digest {
        Digest::of_bytes(text.as_bytes())
    }

    fn count(history: &[&str], next: &str) -> u32 {
        repetitions(&history.iter().map(|t| d(t)).collect::<Vec<_>>(), d(next))
    }

    #[test]
    fn the_same_call_is_counted() {
        assert_eq!(count(&[], "a"), 1);
        assert_eq!(count(&["a"], "a"), 2);
        assert_eq!(count(&["a", "a"], "a"), 3);
    }

    #[test]
    fn something_new_in_between_is_progress() {
        assert_eq!(count(&["test", "edit 1", "test", "edit 2"], "test"), 1);
        assert_eq!(count(&["test", "edit 1", "test", "edit 2", "test"], "test"), 2);
    }

    #[test]
    fn alternating_between_two_old_calls_is_not_progress() {
        assert_eq!(count(&["a", "b", "a", "b", "a"], "b"), 3);
    }
}
