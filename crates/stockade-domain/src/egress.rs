//! Egress rules of an environment: where its sandboxes may connect and what they may ask there.
//!
//! This is the data; `stockade-policy` compiles it, decides with it and explains.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::{RuleVerdict, Verdict};

/// A protocol a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressProtocol {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear.
    Http,
    /// Anything over TLS; what is inside is never looked at.
    Tls,
    /// Secure Shell (RFC 4253); the client's identification is checked.
    Ssh,
    /// PostgreSQL's wire protocol, version 3; the client's first message is checked.
    Postgres,
    /// Any bytes at all, also where the server speaks first; needs `ports`.
    Tcp,
}

impl EgressProtocol {
    /// The protocol as rules spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Postgres => "postgres",
            Self::Tcp => "tcp",
        }
    }

    /// The port meant where a rule names none (the IANA port registry).
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Https | Self::Tls => Some(443),
            Self::Http => Some(80),
            Self::Ssh => Some(22),
            Self::Postgres => Some(5432),
            Self::Tcp => None,
        }
    }

    /// Whether it carries requests with a method and a path.
    pub const fn has_requests(self) -> bool {
        matches!(self, Self::Https | Self::Http)
    }
}

/// Limits on what goes through, over a whole run. Absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficLimits {
    /// Bytes out of the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<NonZeroU64>,
    /// Bytes into the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<NonZeroU64>,
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroU64>,
    /// Requests of HTTP, where connections are read; on a rule it has them read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<NonZeroU64>,
    /// Connections begun within any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_minute: Option<NonZeroU64>,
    /// Requests begun within any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU64>,
}

impl TrafficLimits {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether requests are counted, which needs connections to be read.
    pub fn counts_requests(&self) -> bool {
        self.requests.is_some() || self.requests_per_minute.is_some()
    }
}

/// One egress rule. Every part that is named must fit; a part that is absent fits everything,
/// except that a rule which lets something out means the web (`https` and `http` on their ports)
/// where it names no protocol and no port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// A name for events, receipts and explanations; letters, digits, `.`, `_` and `-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it answers; `hold` is another word for `ask`.
    pub verdict: RuleVerdict,
    /// Hosts: a name, `*.suffix` (every name below, not the suffix itself), or `*`.
    pub hosts: Vec<String>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Protocols.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<EgressProtocol>,
    /// HTTP methods (RFC 9110 9), upper case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Beginnings of paths, by whole segments: `/a` is `/a` and `/a/b`, not `/ab`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Largest content of one request, in bytes; a larger request does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<NonZeroU64>,
    /// Whether connections are read in any case, also where no part needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inspect: bool,
    /// Limits on what this rule lets out, over a whole run.
    #[serde(default, skip_serializing_if = "TrafficLimits::is_unlimited")]
    pub limits: TrafficLimits,
    /// Why; people who approve and read receipts see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl EgressRule {
    /// A rule about hosts and nothing else.
    pub fn hosts(verdict: RuleVerdict, hosts: &[&str]) -> Self {
        Self {
            name: None,
            verdict,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ports: Vec::new(),
            protocols: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            max_request_bytes: None,
            inspect: false,
            limits: TrafficLimits::default(),
            reason: String::new(),
        }
    }

    /// Whether it can only be judged with the request in sight.
    pub fn looks_at_requests(&self) -> bool {
        !self.methods.is_empty()
            || !self.paths.is_empty()
            || self.max_request_bytes.is_some()
            || self.limits.counts_requests()
            || self.inspect
    }
}

/// Why a destination is allowed, held or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The environment.
    pub environment: String,
    /// The agent whose rules were laid over it.
    pub agent: String,
    /// What was asked about, in canonical form.
    pub url: String,
    /// The method, where the protocol has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The answer.
    pub verdict: Verdict,
    /// The rule that gave it, by its id.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// Whether connections there are read, because a rule looks at requests.
    pub inspected: bool,
    /// Limits of the rule that lets it out.
    #[serde(default, skip_serializing_if = "TrafficLimits::is_unlimited")]
    pub limits: TrafficLimits,
    /// What was asked in order, up to what decided.
    pub steps: Vec<ExplainedStep>,
}

/// One rule on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// The rule's id.
    pub rule: String,
    /// Its place in the environment's `egress`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rule in words.
    pub text: String,
    /// Whether it is about the host that was asked about.
    pub names_host: bool,
    /// Whether it decided.
    pub decided: bool,
    /// Why it decided or did not.
    pub why: String,
}
