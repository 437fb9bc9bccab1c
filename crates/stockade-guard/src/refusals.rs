//! Refusals: counted always, written down often enough.
//!
//! A refused destination is written down the first three times and then at every power of
//! ten; each later record says in `args.attempts` how often it was tried so far, and closing
//! a session writes down what is not in a record yet. So a busy loop inside a sandbox cannot
//! fill the store, and no refusal goes missing. Past a thousand different destinations the
//! rest share one count per operation.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::json;
use stockade_domain::{Action, PolicyVerdict};

use crate::ask;

/// Records in a row before sampling begins.
const ALWAYS: u64 = 3;
/// Different destinations that are counted apart.
const DISTINCT: usize = 1024;

/// Counts of what was refused in one session.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    counts: Mutex<HashMap<String, Count>>,
}

#[derive(Debug)]
struct Count {
    action: Action,
    verdict: PolicyVerdict,
    attempts: u64,
    recorded: u64,
}

impl Refusals {
    /// Counts a refusal; gives back the action to write down, if it is this one's turn.
    pub(crate) fn count(&self, action: &Action, verdict: &PolicyVerdict) -> Option<Action> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = key(action, verdict);
        if counts.len() >= DISTINCT && !counts.contains_key(&key) {
            key = format!("{} and others", action.operation);
        }
        let count = counts.entry(key).or_insert_with(|| Count {
            action: action.clone(),
            verdict: verdict.clone(),
            attempts: 0,
            recorded: 0,
        });
        count.attempts += 1;
        count.action = action.clone();
        count.verdict = verdict.clone();
        if !is_turn(count.attempts) {
            return None;
        }
        count.recorded = count.attempts;
        Some(counted(action, count.attempts))
    }

    /// Takes back a record that could not be written; it is due again.
    pub(crate) fn unrecorded(&self, action: &Action, verdict: &PolicyVerdict) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&key(action, verdict)) {
            count.recorded = count.recorded.saturating_sub(1);
        }
    }

    /// What is not in a record yet.
    pub(crate) fn rest(&self) -> Vec<(Action, PolicyVerdict)> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .values_mut()
            .filter(|count| count.recorded < count.attempts)
            .map(|count| {
                count.recorded = count.attempts;
                (counted(&count.action, count.attempts), count.verdict.clone())
            })
            .collect()
    }
}

fn counted(action: &Action, attempts: u64) -> Action {
    if attempts <= ALWAYS {
        return action.clone();
    }
    ask::with(action.clone(), "attempts", json!(attempts))
}

/// The same destination refused by the same rule is the same refusal; a name is one whatever
/// record types were asked for.
fn key(action: &Action, verdict: &PolicyVerdict) -> String {
    match action.operation.as_str() {
        "resolve" => format!("resolve {}", action.target),
        _ => format!("{} {}", verdict.rule, action.digest()),
    }
}

fn is_turn(attempts: u64) -> bool {
    attempts <= ALWAYS
        || attempts
            .checked_ilog10()
            .is_some_and(|power| attempts == 10_u64.pow(power))
}

#[cfg(test)]
mod tests {
    use stockade_domain::Verdict;

    use super::*;

    fn no() -> PolicyVerdict {
        PolicyVerdict {
            verdict: Verdict::Deny,
            rule: "env.custom".to_owned(),
            reason: "not listed".to_owned(),
        }
    }

    #[test]
    fn the_first_three_and_powers_of_ten_are_written_down() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        let written: Vec<u64> = (1..=1000)
            .filter(|_| refusals.count(&action, &no()).is_some())
            .collect();
        assert_eq!(written, [1, 2, 3, 10, 100, 1000]);
        assert!(refusals.rest().is_empty());
    }

    #[test]
    fn what_was_only_counted_is_written_down_at_the_end() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        for _ in 0..57 {
            refusals.count(&action, &no());
        }
        let rest = refusals.rest();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].0.args["attempts"], 57);
        assert!(refusals.rest().is_empty(), "once");
    }

    #[test]
    fn a_record_that_failed_is_due_again() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        assert!(refusals.count(&action, &no()).is_some());
        refusals.unrecorded(&action, &no());
        assert_eq!(refusals.rest().len(), 1);
    }

    #[test]
    fn many_names_share_a_count_in_the_end() {
        let refusals = Refusals::default();
        let written = (0..5000)
            .filter(|n| {
                refusals
                    .count(&ask::resolve(&format!("n{n}.example"), "A"), &no())
                    .is_some()
            })
            .count();
        assert!(written < 1040, "{written}");
        let last = refusals.rest().pop().expect("the shared count");
        assert_eq!(last.0.args["attempts"], 5000 - 1024);
    }
}
