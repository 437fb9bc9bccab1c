//! Names as a way out: below a wildcard an agent chooses the names, and looking one up tells its
//! labels to whoever serves the zone.
//!
//! Nothing is looked up for a question, only for a connection; so what can leave in names is what
//! different names below one wildcard say. That is what is limited, over a run: how many there are,
//! how long, how many bytes, how many that read like encoded data, how many new ones in a minute.
//! A name that an entry or a rule spells out says nothing and is never limited.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
};

use stockade_policy::HostName;

use crate::traffic::Window;

/// How much names below one wildcard may say in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Bytes of one name below the wildcard's suffix, dots included.
    pub name_bytes: usize,
    /// Labels of one name below the wildcard's suffix.
    pub labels: usize,
    /// Different names.
    pub names: usize,
    /// Bytes of all different names, the wildcard's suffix left out.
    pub bytes: usize,
    /// Different names with a label that reads like encoded data: 40 characters and more, with
    /// 4.35 bits of entropy in each, which words and hexadecimal digits do not reach.
    pub dense: usize,
    /// New names within any minute.
    pub names_per_minute: NonZeroU64,
}

impl Default for TunnelLimits {
    /// More than package managers, browsers and object stores need: 256 names, 120 of them new in a
    /// minute, 8 KiB in all, 100 bytes and 6 labels in one, 16 that read like encoded data.
    fn default() -> Self {
        Self {
            name_bytes: 100,
            labels: 6,
            names: 256,
            bytes: 8 * 1024,
            dense: 16,
            names_per_minute: const { NonZeroU64::new(120).unwrap() },
        }
    }
}

/// A label that reads like encoded data is so long at least.
const DENSE_LENGTH: usize = 40;
/// And has so many bits of entropy in each character at least.
const DENSE_BITS: f64 = 4.35;

/// The names below every wildcard of one session.
#[derive(Debug)]
pub(crate) struct Tunnels {
    limits: TunnelLimits,
    below: Mutex<HashMap<String, Below>>,
}

#[derive(Debug)]
struct Below {
    names: HashSet<HostName>,
    bytes: usize,
    dense: usize,
    rate: Window,
}

impl Tunnels {
    pub(crate) fn new(limits: TunnelLimits) -> Self {
        Self {
            limits,
            below: Mutex::default(),
        }
    }

    /// Counts a name below a wildcard's suffix.
    ///
    /// # Errors
    ///
    /// Which limit it goes beyond, in words; the name is not counted then.
    pub(crate) fn admit(&self, name: &HostName, suffix: &str) -> Result<(), String> {
        let limits = &self.limits;
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        let below = below.entry(suffix.to_owned()).or_insert_with(|| Below {
            names: HashSet::new(),
            bytes: 0,
            dense: 0,
            rate: Window::new(limits.names_per_minute),
        });
        if below.names.contains(name) {
            return Ok(());
        }
        let said = name
            .as_str()
            .strip_suffix(suffix)
            .unwrap_or(name.as_str())
            .trim_end_matches('.');
        let dense = usize::from(said.split('.').any(is_dense));
        let over = |most: usize, what: &str| Err(format!("more than {most} {what} below '{suffix}'"));
        if said.len() > limits.name_bytes {
            return over(limits.name_bytes, "bytes in one name");
        }
        if said.split('.').count() > limits.labels {
            return over(limits.labels, "labels in one name");
        }
        if below.names.len() >= limits.names {
            return over(limits.names, "different names");
        }
        if below.bytes + said.len() > limits.bytes {
            return over(limits.bytes, "bytes of different names");
        }
        if below.dense + dense > limits.dense {
            return over(limits.dense, "names that read like encoded data");
        }
        if !below.rate.one() {
            return Err(format!(
                "more than {} new names in a minute below '{suffix}'",
                limits.names_per_minute
            ));
        }
        below.bytes += said.len();
        below.dense += dense;
        below.names.insert(name.clone());
        Ok(())
    }
}

fn is_dense(label: &str) -> bool {
    label.len() >= DENSE_LENGTH && entropy(label) >= DENSE_BITS
}

/// Bits of Shannon entropy in each character, as far as the text shows it.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let share = |count: u32| f64::from(count) / text.len() as f64;
    let seen = counts.iter().filter(|count| **count > 0);
    seen.map(|count| -share(*count) * share(*count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use stockade_policy::Host;

    use super::*;

    const SUFFIX: &str = "s3.example.com";

    fn admit(tunnels: &Tunnels, said: &str) -> Result<(), String> {
        let host = Host::parse(&format!("{said}.{SUFFIX}")).unwrap();
        tunnels.admit(host.name().unwrap(), SUFFIX)
    }

    /// Pseudo-random base32, as tunnels encode what they carry.
    fn encoded(seed: u64, length: usize) -> String {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let digit = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(state >> 20) as usize % 32])
        };
        (0..length).map(digit).collect()
    }

    #[test]
    fn buckets_and_mirrors_are_let_through() {
        let tunnels = Tunnels::new(TunnelLimits::default());
        let kinds = ["logs", "artifacts", "backup", "models", "terraform-state", "website"];
        let regions = ["us-east-1", "eu-central-1", "ap-southeast-2"];
        for (n, kind) in kinds.iter().enumerate() {
            for region in regions {
                let bucket = format!("acme-platform-production-{n}-{kind}-{region}");
                assert_eq!(admit(&tunnels, &bucket), Ok(()), "{bucket}");
            }
        }
        // Account ids and the like, 32 hexadecimal digits, and a few content hashes.
        for n in 0..10_u64 {
            let id = format!("{:032x}", u128::from(n) * 0x1234_5678_9abc_def0_1357);
            assert_eq!(admit(&tunnels, &id), Ok(()), "{id}");
            assert_eq!(admit(&tunnels, &encoded(n + 1, 59)), Ok(()));
        }
        assert_eq!(
            admit(&tunnels, "acme-platform-production-0-logs-us-east-1"),
            Ok(()),
            "again"
        );
    }

    #[test]
    fn encoded_data_is_stopped_by_how_it_reads() {
        let tunnels = Tunnels::new(TunnelLimits::default());
        let passed = (0..100)
            .filter(|n| admit(&tunnels, &encoded(n + 1, 60)).is_ok())
            .count();
        assert_eq!(passed, 16);
        assert!(admit(&tunnels, "plain").is_ok(), "other names still pass");
    }

    #[test]
    fn small_pieces_are_stopped_by_their_number_and_bytes() {
        let limits = TunnelLimits {
            names: 10,
            ..TunnelLimits::default()
        };
        let tunnels = Tunnels::new(limits);
        let passed = (0..100).filter(|n| admit(&tunnels, &encoded(n + 1, 8)).is_ok()).count();
        assert_eq!(passed, 10);
        let limits = TunnelLimits {
            bytes: 100,
            ..TunnelLimits::default()
        };
        let tunnels = Tunnels::new(limits);
        assert_eq!(
            (0..100)
                .filter(|n| admit(&tunnels, &encoded(n + 1, 30)).is_ok())
                .count(),
            3
        );
    }

    #[test]
    fn long_deep_and_quick_ones_are_stopped() {
        let tunnels = Tunnels::new(TunnelLimits::default());
        let long = format!("{0}.{0}", "a".repeat(60));
        assert!(admit(&tunnels, &long).unwrap_err().contains("bytes in one name"));
        assert!(admit(&tunnels, "a.b.c.d.e.f.g").unwrap_err().contains("labels"));
        assert!(admit(&tunnels, "a.b.c.d.e.f").is_ok(), "control");
        let quick = (0..200).filter(|n| admit(&tunnels, &format!("n{n}")).is_ok()).count();
        assert_eq!(quick, 119, "one of the minute's 120 was the control");
        let error = admit(&tunnels, "another").unwrap_err();
        assert!(error.contains("120 new names in a minute"), "{error}");
    }

    #[test]
    fn every_wildcard_counts_for_itself() {
        let tunnels = Tunnels::new(TunnelLimits {
            names: 1,
            ..TunnelLimits::default()
        });
        let name = |text: &str| Host::parse(text).unwrap().name().unwrap().clone();
        assert!(tunnels.admit(&name("a.one.example"), "one.example").is_ok());
        assert!(tunnels.admit(&name("b.one.example"), "one.example").is_err());
        assert!(tunnels.admit(&name("b.two.example"), "two.example").is_ok());
    }
}
