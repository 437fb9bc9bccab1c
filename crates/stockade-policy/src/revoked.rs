//! The hosts of a revocation.

use std::fmt;

use crate::{egress::HostPattern, host::Host};

/// Hosts that are taken away: a name, every name below a suffix, an address, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked(Taken);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Taken {
    Named(HostPattern),
    Address(Host),
}

impl Revoked {
    /// Every host.
    pub const ALL: Self = Self(Taken::Named(HostPattern::All));

    /// Reads the hosts of a revocation.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        match Host::parse(text) {
            Ok(address @ Host::Address(_)) => Ok(Self(Taken::Address(address))),
            Ok(Host::Name(_)) | Err(_) => HostPattern::parse(text).map(|pattern| Self(Taken::Named(pattern))),
        }
    }

    /// Whether this host is among them.
    pub fn names(&self, host: &Host) -> bool {
        match &self.0 {
            Taken::Named(pattern) => pattern.names(host),
            Taken::Address(address) => address == host,
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Taken::Named(pattern) => pattern.fmt(f),
            Taken::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suffixes_addresses_and_all() {
        let named = |text: &str, host: &str| Revoked::parse(text).unwrap().names(&Host::parse(host).unwrap());
        assert!(named("A.Example.com.", "a.example.com") && !named("a.example.com", "b.a.example.com"));
        assert!(named("*.example.com", "a.example.com") && !named("*.example.com", "example.com"));
        assert!(named("*", "a.example.com") && named("*", "93.184.216.34") && named("*", "2606:4700::1111"));
        assert!(named("93.184.216.34", "93.184.216.34") && !named("93.184.216.34", "93.184.216.35"));
        for bad in ["", "*.", "https://a.example.com", "a.example.com:443", "a.*.com"] {
            assert!(Revoked::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Revoked::parse("*").unwrap(), Revoked::ALL);
    }
}
