//! Whether a binding covers a request.

use http::Method;
use stockade_domain::CredentialBinding;
use stockade_policy::{
    Host, RequestPath,
    egress::HostPattern,
    target::{PathPrefix, Scheme},
};

use super::CredentialFault;

/// Where a request goes, as the Guard has judged it: every name in the request agrees with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The host.
    pub host: &'a Host,
    /// The port.
    pub port: u16,
    /// Whether the Guard speaks TLS to it, with a certificate it has verified.
    pub tls: bool,
}

/// The requests a binding is for, read with the same parsers as egress rules.
pub(super) struct Coverage {
    hosts: Vec<(HostPattern, u16)>,
    methods: Vec<String>,
    paths: Vec<PathPrefix>,
}

impl Coverage {
    /// Reads what a binding says.
    pub(super) fn of(binding: &CredentialBinding) -> Result<Self, CredentialFault> {
        let wrong = |why: String| CredentialFault::Binding {
            secret: binding.secret.clone(),
            why,
        };
        // A slash at the end covers here what it stands behind as well.
        let path = |text: &String| PathPrefix::parse(text.strip_suffix('/').filter(|t| !t.is_empty()).unwrap_or(text));
        Ok(Self {
            hosts: binding
                .hosts
                .iter()
                .map(|text| host(text))
                .collect::<Result<_, _>>()
                .map_err(wrong)?,
            methods: binding.methods.clone(),
            paths: binding
                .paths
                .iter()
                .map(path)
                .collect::<Result<_, _>>()
                .map_err(wrong)?,
        })
    }

    /// Whether the secret may go into a request. In doubt it may not.
    pub(super) fn covers(&self, to: Destination<'_>, method: &Method, path: &str) -> bool {
        // TRACE sends back what it got (RFC 9110, section 9.3.8).
        let methods = match self.methods.is_empty() {
            true => *method != Method::TRACE && *method != Method::CONNECT,
            false => self.methods.iter().any(|m| m == method.as_str()),
        };
        methods && self.is_bound(to) && self.covers_path(path)
    }

    /// Whether some request to this destination is covered.
    pub(super) fn is_bound(&self, to: Destination<'_>) -> bool {
        let named = |(pattern, port): &(HostPattern, u16)| *port == to.port && pattern.names(to.host);
        to.tls && self.hosts.iter().any(named)
    }

    /// Whether every server takes the path for one that is covered.
    fn covers_path(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        RequestPath::parse(path).is_ok_and(|path| self.paths.iter().any(|prefix| path.is_surely_within(prefix)))
    }
}

/// A host, or a wildcard, with the port it may have behind it.
fn host(text: &str) -> Result<(HostPattern, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (
            host,
            port.parse()
                .map_err(|_| format!("'{text}' has no port from 1 to 65535"))?,
        ),
        None => (text, Scheme::Https.default_port()),
    };
    match HostPattern::parse(host)? {
        HostPattern::All => Err("a secret is bound to hosts by name".to_owned()),
        pattern => Ok((pattern, port)),
    }
}

#[cfg(test)]
#[path = "cover_tests.rs"]
mod tests;
