//! Entries of a list of domains.

use super::{
    INTERNAL_PORT,
    pattern::{HostPattern, hint},
};
use crate::host::{Host, host_and_port};

/// Ports meant by an entry without one.
pub const DEFAULT_PORTS: [u16; 2] = [INTERNAL_PORT, 443];

/// One entry of a domain list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEntry {
    pub(super) hosts: HostPattern,
    port: Option<u16>,
    pub(super) trusted: bool,
}

impl DomainEntry {
    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("domain '{}': {what}", text.escape_default()));
        let entry = text.trim();
        if entry.contains("://") || entry.contains('/') {
            return wrong("write a host name without scheme and path, like 'api.example.com'");
        }
        let (wildcard, rest) = match entry.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, entry),
        };
        if rest.contains('*') {
            return wrong(&format!("{}; for every host use 'network: full'", hint(rest, "")));
        }
        let (host, port) = match host_and_port(rest) {
            Ok(read) => read,
            Err(error) => return wrong(&format!("{error}; write 'host', '*.suffix' or 'host:port'")),
        };
        if port == Some(53) {
            return wrong("port 53 is answered by the Guard itself and leads nowhere");
        }
        match HostPattern::of(&host, wildcard) {
            Ok(hosts) => Ok(Self {
                hosts,
                port,
                trusted: false,
            }),
            Err(why) => wrong(&why),
        }
    }

    /// An entry of the curated list.
    pub(super) fn trusted(text: &str) -> Result<Self, String> {
        Ok(Self {
            trusted: true,
            ..Self::parse(text)?
        })
    }

    /// Whether it means this port of this host, where an entry without a port means every port.
    pub(crate) fn means(&self, host: &Host, port: u16) -> bool {
        self.hosts.names(host) && self.port.is_none_or(|own| own == port)
    }

    /// One port of one host.
    pub(crate) fn exactly(host: &Host, port: u16) -> Result<Self, String> {
        Ok(Self {
            hosts: HostPattern::of(host, false)?,
            port: Some(port),
            trusted: false,
        })
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.port.map_or(DEFAULT_PORTS.contains(&port), |own| own == port)
    }

    pub(super) fn is_opaque(&self, port: u16) -> bool {
        self.port == Some(port) && !DEFAULT_PORTS.contains(&port)
    }

    pub(super) fn is_exact(&self) -> bool {
        matches!(self.hosts, HostPattern::Exact(_))
    }

    pub(super) fn rule(&self) -> String {
        let level = if self.trusted { "trusted" } else { "custom" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("env.{level}:{}{port}", self.hosts)
    }
}
