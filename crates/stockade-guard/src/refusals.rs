//! Refusals: counted always, written down often enough.
//!
//! A refused destination is written down the first three times and then at every power of ten; what
//! was only counted by then is written down from time to time, and when the session is closed. Each
//! record says in `args.attempts` how often it was tried so far and in `args.counted` how many of
//! these the record stands for (1 where absent), so that the records of a run add up to exactly
//! what was refused. Past 32 different ones of one rule and host, and past a thousand in all, the
//! rest share a count; `args.others` says that a record stands for several.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::json;
use stockade_domain::{Action, PolicyVerdict};

use crate::ask;

/// Records in a row before sampling begins.
const ALWAYS: u64 = 3;
/// Different refusals of one rule and host that are counted apart.
const OF_ONE_HOST: usize = 32;
/// Different refusals that are counted apart.
const DISTINCT: usize = 1024;

/// Counts of what was refused in one session.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<String, Count>,
    of_host: HashMap<String, usize>,
}

#[derive(Debug)]
struct Count {
    action: Action,
    verdict: PolicyVerdict,
    attempts: u64,
    /// How many of them are in records, or in one that is being written.
    recorded: u64,
    /// Whether it stands for several destinations.
    others: bool,
}

/// A record to write.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) action: Action,
    pub(crate) verdict: PolicyVerdict,
    key: String,
    counted: u64,
}

impl Refusals {
    /// Counts a refusal; gives back what to write down, if it is this one's turn.
    pub(crate) fn count(&self, action: &Action, verdict: &PolicyVerdict) -> Option<Due> {
        let mut table = self.lock();
        let (key, others) = table.place(action, verdict);
        let count = table.counts.entry(key.clone()).or_insert_with(|| Count {
            action: action.clone(),
            verdict: verdict.clone(),
            attempts: 0,
            recorded: 0,
            others,
        });
        count.attempts += 1;
        count.action = action.clone();
        count.verdict = verdict.clone();
        is_turn(count.attempts).then(|| count.due(key))
    }

    /// Takes back a record that could not be written; it is due again.
    pub(crate) fn unrecorded(&self, due: &Due) {
        if let Some(count) = self.lock().counts.get_mut(&due.key) {
            count.recorded = count.recorded.saturating_sub(due.counted);
        }
    }

    /// What is not in a record yet: at most so many, those with the most attempts first.
    pub(crate) fn rest(&self, most: usize) -> Vec<Due> {
        let mut table = self.lock();
        let open = table
            .counts
            .iter_mut()
            .filter(|(_, count)| count.recorded < count.attempts);
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|(_, count)| std::cmp::Reverse(count.attempts - count.recorded));
        open.truncate(most);
        open.into_iter().map(|(key, count)| count.due(key.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The count a refusal belongs to, and whether that one stands for several.
    fn place(&mut self, action: &Action, verdict: &PolicyVerdict) -> (String, bool) {
        let key = key(action, verdict);
        if self.counts.contains_key(&key) {
            return (key, false);
        }
        let host = action.args["host"].as_str().unwrap_or_default();
        let group = match action.args["tunnel"].as_str() {
            // Every name of a tunnel is another host.
            Some(_) => format!(
                "{} {}",
                verdict.rule,
                action.args["suffix"].as_str().unwrap_or_default()
            ),
            None => format!("{} {host}", verdict.rule),
        };
        if self.of_host.get(&group).is_some_and(|known| *known >= OF_ONE_HOST) {
            return (format!("others of {group}"), true);
        }
        if self.counts.len() >= DISTINCT {
            return (format!("others to {}", action.operation), true);
        }
        *self.of_host.entry(group).or_default() += 1;
        (key, false)
    }
}

impl Count {
    fn due(&mut self, key: String) -> Due {
        let counted = self.attempts - self.recorded;
        self.recorded = self.attempts;
        let mut action = self.action.clone();
        if self.attempts > ALWAYS || counted > 1 {
            action = ask::with(action, "attempts", json!(self.attempts));
            action = ask::with(action, "counted", json!(counted));
        }
        if self.others {
            action = ask::with(action, "others", json!(true));
        }
        Due {
            action,
            verdict: self.verdict.clone(),
            key,
            counted,
        }
    }
}

/// The same destination refused by the same rule is the same refusal; a name is one whatever
/// record types were asked for.
fn key(action: &Action, verdict: &PolicyVerdict) -> String {
    match action.operation.as_str() {
        "resolve" => format!("resolve {} {}", verdict.rule, action.target),
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

    fn counted(due: &Due) -> u64 {
        due.action.args["counted"].as_u64().unwrap_or(1)
    }

    #[test]
    fn the_first_three_and_powers_of_ten_are_written_down() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        let written: Vec<u64> = (1..=1000)
            .filter(|_| refusals.count(&action, &no()).is_some())
            .collect();
        assert_eq!(written, [1, 2, 3, 10, 100, 1000]);
        assert!(refusals.rest(9).is_empty());
    }

    #[test]
    fn what_was_only_counted_is_written_down_at_the_end() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        for _ in 0..57 {
            refusals.count(&action, &no());
        }
        let rest = refusals.rest(9);
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].action.args["attempts"], 57);
        assert_eq!(counted(&rest[0]), 47);
        assert!(refusals.rest(9).is_empty(), "once");
    }

    #[test]
    fn a_record_that_failed_is_due_again_with_all_it_stood_for() {
        let refusals = Refusals::default();
        let action = ask::resolve("evil.example", "A");
        let first = refusals.count(&action, &no()).expect("a turn");
        for _ in 0..9 {
            if let Some(due) = refusals.count(&action, &no()) {
                refusals.unrecorded(&due);
            }
        }
        refusals.unrecorded(&first);
        let rest = refusals.rest(9);
        assert_eq!((rest.len(), counted(&rest[0])), (1, 10));
    }

    #[test]
    fn whatever_comes_records_add_up() {
        let refusals = Refusals::default();
        let (mut asked, mut told) = (0, 0);
        for n in 0..20_000_u64 {
            let action = match n % 4 {
                0 => ask::resolve(&format!("n{}.example", n % 3000), "A"),
                1 => ask::with(ask::resolve("one.example", "A"), "host", json!("one.example")),
                2 => ask::with(ask::resolve(&format!("t{n}.tunnel.example"), "A"), "tunnel", json!("x")),
                _ => ask::resolve("evil.example", "AAAA"),
            };
            asked += 1;
            if let Some(due) = refusals.count(&action, &no()) {
                match n % 7 {
                    0 => refusals.unrecorded(&due),
                    _ => told += counted(&due),
                }
            }
            if n % 1000 == 0 {
                told += refusals.rest(16).iter().map(counted).sum::<u64>();
            }
        }
        told += refusals.rest(usize::MAX).iter().map(counted).sum::<u64>();
        assert_eq!(told, asked);
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
        let last = refusals.rest(usize::MAX).pop().expect("the shared count");
        assert_eq!(last.action.args["attempts"], 5000 - 1024);
        assert_eq!(last.action.args["others"], true);
    }

    #[test]
    fn one_host_does_not_fill_the_list() {
        let refusals = Refusals::default();
        let path = |n: u32| ask::with(ask::resolve("a.example.com", "A"), "path", json!(format!("/{n}")));
        let request = |n: u32| Action {
            operation: "request".to_owned(),
            ..path(n)
        };
        let written = (0..5000)
            .filter(|n| refusals.count(&request(*n), &no()).is_some())
            .count();
        assert!(written < 50, "{written}");
        assert!(
            refusals.count(&ask::resolve("other.example", "A"), &no()).is_some(),
            "control"
        );
    }
}
