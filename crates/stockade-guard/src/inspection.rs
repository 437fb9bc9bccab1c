//! Which connections are opened, and what is said to the requests inside.
//!
//! The rules of an environment are the policy's; this is the seam between them and the Guard.
//! [`ByPolicy`] is what the Guard uses by itself; tests say otherwise.

use serde_json::json;
use stockade_domain::{Action, ActionKind, PolicyVerdict};
use stockade_policy::{Host, Policy};

use crate::ask;

/// A request as it stood in the sandbox's connection, its host in canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The one host that DNS answer, server name, certificate and authority agree on.
    pub host: &'a Host,
    /// The port of the connection.
    pub port: u16,
    /// Whether it came through TLS.
    pub secure: bool,
    /// The method as sent.
    pub method: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// The query as sent, without the question mark.
    pub query: Option<&'a str>,
    /// Length of the content in bytes, where the request states it.
    pub bytes: Option<u64>,
}

impl RequestLine<'_> {
    /// The request as an action, whole: what a rule judges and a person is shown.
    pub fn action(&self) -> Action {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        self.written(&format!("{}{query}", self.path))
    }

    /// The same for the record of a refusal, without the query: it may hold what no record should.
    pub(crate) fn refused(&self) -> Action {
        self.written(&ask::clipped(self.path))
    }

    fn written(&self, path: &str) -> Action {
        let protocol = if self.secure { "https" } else { "http" };
        let host = match self.host {
            Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        };
        let mut args = json!({
            "host": self.host.to_string(), "port": self.port, "protocol": protocol,
            "method": self.method, "path": path,
        });
        if let Some(bytes) = self.bytes {
            args["bytes"] = json!(bytes);
        }
        Action {
            kind: ActionKind::Egress,
            operation: "request".to_owned(),
            target: ask::clipped(&format!("{} {protocol}://{host}:{}{path}", self.method, self.port)),
            args,
        }
    }
}

/// Says what has to be inspected and judges what is seen then.
pub trait Inspector: Send + Sync {
    /// Whether any destination of this policy needs inspection. Where none does, the run gets no
    /// certificate authority.
    fn any(&self, policy: &Policy) -> bool;

    /// The rule that needs the requests to this destination to be read, if one does. Traffic to
    /// it that cannot be read is then refused; a connection that will be read says so to the
    /// policy (`args.inspected` of its action).
    fn needs(&self, policy: &Policy, host: &Host, port: u16) -> Option<String>;

    /// What the rules say to one request of a destination that [`Inspector::needs`] named, beyond
    /// what they said to its connection; `None` when nothing. A request that is held waits as its
    /// own action, [`RequestLine::action`].
    fn judge(&self, policy: &Policy, request: &RequestLine<'_>) -> Option<PolicyVerdict>;
}

/// The rules of the environment and the agent, as the policy holds them.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByPolicy;

impl Inspector for ByPolicy {
    fn any(&self, policy: &Policy) -> bool {
        policy.looks_at_requests()
    }

    fn needs(&self, policy: &Policy, host: &Host, port: u16) -> Option<String> {
        policy.inspection_rule(host, port)
    }

    fn judge(&self, policy: &Policy, request: &RequestLine<'_>) -> Option<PolicyVerdict> {
        Some(policy.evaluate(&request.action()))
    }
}
