//! Which hosts an entry means, and finding the entries of a host among very many.

use std::{collections::HashMap, fmt};

use super::names::{is_never, is_private_name};
use crate::host::{Host, HostName};

/// The hosts an entry means: a name, every name below a suffix, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// That host alone.
    Exact(String),
    /// Every name below the suffix, never the suffix itself: `*.b.c` is `a.b.c` and `x.a.b.c`.
    Below(String),
    /// Every host, bare addresses included.
    All,
}

impl HostPattern {
    /// Reads a host of an egress rule.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains("://") || rest.contains('/') {
            return Err("write a host name without scheme and path, like 'api.example.com'".to_owned());
        }
        if rest.contains(':') && !rest.starts_with('[') {
            return Err("a host stands here without its port; list ports under 'ports'".to_owned());
        }
        Self::of(
            &Host::parse(rest).map_err(|error| hint(rest, &error.to_string()))?,
            wildcard,
        )
    }

    /// The pattern of a host that was read already.
    pub(super) fn of(host: &Host, wildcard: bool) -> Result<Self, String> {
        let wrong = |why: &str| Err(why.to_owned());
        let Host::Name(name) = host else {
            return wrong("name the host, not its address; private ranges are opened by 'address_exceptions'");
        };
        if !name.is_dotted() {
            return wrong("a name needs at least two labels");
        }
        if is_never(name) || (wildcard && is_private_name(name)) {
            return wrong("names of this machine, of its cloud and of private networks cannot be opened as a whole");
        }
        let name = name.as_str().to_owned();
        Ok(if wildcard { Self::Below(name) } else { Self::Exact(name) })
    }

    /// Whether it means this host.
    pub fn names(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Exact(own), Host::Name(name)) => name.as_str() == own,
            (Self::Below(suffix), Host::Name(name)) => name.is_below(suffix),
            (_, Host::Address(_)) => false,
        }
    }
}

/// An error about a host, with what to write where a star is in the wrong place.
pub(super) fn hint(text: &str, error: &str) -> String {
    if text.contains('*') {
        return "'*' may only stand for the leading labels, as in '*.example.com'".to_owned();
    }
    error.to_owned()
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::All => f.write_str("*"),
        }
    }
}

/// Places in a list by the hosts they are about: one look-up for the name and one for each of
/// its suffixes, however long the list is.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostIndex {
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    all: Vec<usize>,
}

impl HostIndex {
    pub(super) fn add(&mut self, pattern: &HostPattern, place: usize) {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default().push(place),
            HostPattern::Below(suffix) => self.below.entry(suffix.clone()).or_default().push(place),
            HostPattern::All => self.all.push(place),
        }
    }

    /// The places that are about a host, in the order of the list.
    pub(super) fn of(&self, host: &Host) -> Vec<usize> {
        match host {
            Host::Name(name) => self.of_name(name),
            Host::Address(_) => self.all.clone(),
        }
    }

    /// The same for a name.
    pub(super) fn of_name(&self, name: &HostName) -> Vec<usize> {
        let mut places = self.all.clone();
        let name = name.as_str();
        places.extend(self.exact.get(name).into_iter().flatten());
        for (dot, _) in name.match_indices('.') {
            places.extend(self.below.get(&name[dot + 1..]).into_iter().flatten());
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_suffix_is_no_host_and_no_port_stands_with_a_host() {
        for bad in [
            "*.",
            "*.com",
            "a.*.com",
            "**.a.com",
            "*a.com",
            "a.com:80",
            "https://a.com",
            "10.0.0.1",
            "localhost",
            "*.internal",
            "",
            "[::1]",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            HostPattern::parse("*.Example.COM.").unwrap().to_string(),
            "*.example.com"
        );
        assert_eq!(
            HostPattern::parse("bücher.example").unwrap().to_string(),
            "xn--bcher-kva.example"
        );
    }

    proptest! {
        /// Whatever the list, the index finds what a walk through all of it finds.
        #[test]
        fn the_index_finds_what_a_scan_finds(
            patterns in prop::collection::vec("(\\*\\.)?[ab](\\.[ab]){1,3}|\\*", 0..12),
            name in "[ab](\\.[ab]){0,4}",
        ) {
            let patterns: Vec<HostPattern> = patterns.iter().map(|text| HostPattern::parse(text).unwrap()).collect();
            let mut index = HostIndex::default();
            for (place, pattern) in patterns.iter().enumerate() {
                index.add(pattern, place);
            }
            let host = Host::parse(&name).unwrap();
            let scanned: Vec<usize> = (0..patterns.len()).filter(|at| patterns[*at].names(&host)).collect();
            prop_assert_eq!(index.of(&host), scanned);
        }
    }
}
