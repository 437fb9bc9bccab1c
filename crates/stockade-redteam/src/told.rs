//! What an attacker told, line by line.

use std::collections::BTreeMap;

use serde::Deserialize;
use stockade_ports::Exit;

use crate::judge::Attempt;

/// Everything one attacker told, and how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) counts: BTreeMap<String, u64>,
    /// It came to its end. A kernel or a limit that ended it earlier leaves this false.
    pub(crate) done: bool,
    /// Why it could not run at all, or how it ended instead of properly.
    pub(crate) fault: Option<String>,
    pub(crate) exit: Option<Exit>,
    pub(crate) bytes: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Attempt(Attempt),
    Count {
        count: String,
        number: u64,
    },
    Done {
        #[allow(dead_code)]
        done: bool,
    },
}

impl Told {
    /// Reads an attacker's standard output.
    pub(crate) fn read(output: &[u8]) -> Self {
        let mut told = Self {
            bytes: output.len() as u64,
            ..Self::default()
        };
        for line in output.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Attempt(attempt)) => told.attempts.push(attempt),
                Ok(Line::Count { count, number }) => drop(told.counts.insert(count, number)),
                Ok(Line::Done { .. }) => told.done = true,
                Err(_) => {}
            }
        }
        told
    }

    /// An attacker that could not be started.
    pub(crate) fn fault(why: impl Into<String>) -> Self {
        Self {
            fault: Some(why.into()),
            ..Self::default()
        }
    }

    /// The attempts; one that says so when the attacker did not come to its end.
    pub(crate) fn complete(self) -> Result<Vec<Attempt>, String> {
        if self.done {
            return Ok(self.attempts);
        }
        let how = self.fault.unwrap_or_else(|| format!("it ended early: {:?}", self.exit));
        Err(how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_noise_is_not() {
        let told = Told::read(
            b"noise\n{\"name\":\"a\",\"got\":true,\"why\":\"w\"}\n{\"count\":\"n\",\"number\":3}\n\
              {\"name\":\"b\",\"got\":false,\"why\":\"no\",\"errno\":1}\n{\"done\":true}\n",
        );
        assert!(told.done);
        assert_eq!(told.counts["n"], 3);
        assert_eq!(told.attempts.len(), 2);
        assert!(told.attempts[0].got && told.attempts[1].errno == Some(1));
    }

    #[test]
    fn an_attacker_that_was_cut_off_is_not_complete() {
        let told = Told::read(b"{\"name\":\"a\",\"got\":false,\"why\":\"w\"}\n");
        assert!(told.complete().is_err());
        assert!(Told::fault("gone").complete().is_err_and(|why| why == "gone"));
    }
}
