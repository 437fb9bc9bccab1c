//! One egress rule, compiled: checked once, with hosts, methods and paths in canonical form.

use stockade_domain::{EgressProtocol, EgressRule, NetworkLevel, RuleVerdict};

use super::{entry::DEFAULT_PORTS, pattern::HostPattern, protocol::Protocol};
use crate::target::{PathPrefix, RequestPath};

/// Protocols meant by a rule that lets something out and names none.
const WEB: [EgressProtocol; 2] = [EgressProtocol::Https, EgressProtocol::Http];

/// What is asked about, as far as it is known yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The port; absent while a name is looked up.
    pub(crate) port: Option<u16>,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// The request; absent while a connection is opened.
    pub(crate) request: Option<Request<'a>>,
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// The path.
    pub(crate) path: &'a RequestPath,
    /// Bytes of its content, where it says how many.
    pub(crate) bytes: Option<u64>,
}

/// Whether a rule is about what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is.
    Yes,
    /// Not enough is known yet.
    Perhaps,
    /// It is not.
    No(Miss),
    /// It would depend on how a server reads the path.
    Doubt,
}

/// The first part of a rule that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    Host,
    Port,
    Protocol,
    Method,
    Path,
    Size,
}

impl Miss {
    /// Why, in words.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Host => "it names other hosts",
            Self::Port => "it names other ports",
            Self::Protocol => "it names other protocols",
            Self::Method => "it names other methods",
            Self::Path => "it names other paths",
            Self::Size => "the request is larger than it allows",
        }
    }
}

/// A rule, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledRule {
    pub(super) index: usize,
    pub(super) hosts: Vec<HostPattern>,
    /// Empty means every port.
    ports: Vec<u16>,
    /// Empty means every protocol.
    protocols: Vec<EgressProtocol>,
    paths: Vec<PathPrefix>,
    pub(super) rule: EgressRule,
}

impl CompiledRule {
    /// Checks and compiles a rule of an environment with that level.
    pub(super) fn compile(index: usize, rule: &EgressRule, level: NetworkLevel) -> Result<Self, String> {
        let name = rule
            .name
            .as_deref()
            .map(|name| format!(" ('{}')", name.escape_default()));
        let place = format!("egress[{index}]{}", name.unwrap_or_default());
        Self::checked(index, rule, level).map_err(|cause| format!("{place}: {cause}"))
    }

    fn checked(index: usize, rule: &EgressRule, level: NetworkLevel) -> Result<Self, String> {
        check_shape(rule, level)?;
        let host = |text: &String| {
            HostPattern::parse(text.trim()).map_err(|why| format!("host '{}': {why}", text.escape_default()))
        };
        let hosts: Vec<HostPattern> = rule.hosts.iter().map(host).collect::<Result<_, _>>()?;
        if rule.verdict != RuleVerdict::Deny && level != NetworkLevel::Full && hosts.contains(&HostPattern::All) {
            return Err("host '*' lets out to everywhere, which only 'network: full' may; name the hosts".to_owned());
        }
        let protocols = protocols(rule)?;
        let ports = ports(rule, &protocols)?;
        Ok(Self {
            index,
            hosts,
            ports,
            protocols,
            paths: rule
                .paths
                .iter()
                .map(|text| PathPrefix::parse(text))
                .collect::<Result<_, _>>()?,
            rule: rule.clone(),
        })
    }

    /// The rule's id in verdicts, events and receipts: where it stands, and its name.
    pub(super) fn id(&self) -> String {
        match &self.rule.name {
            Some(name) => format!("env.egress[{}]:{name}", self.index),
            None => format!("env.egress[{}]", self.index),
        }
    }

    pub(super) fn denies(&self) -> bool {
        self.rule.verdict == RuleVerdict::Deny
    }

    /// Whether it names this very host among others, without a wildcard.
    pub(super) fn names_exactly(&self, name: &str) -> bool {
        let same = |host: &HostPattern| matches!(host, HostPattern::Exact(own) if own == name);
        self.hosts.iter().any(same)
    }

    /// Whether any bytes may be spoken to this port, also by the server first.
    pub(super) fn is_opaque(&self, port: u16) -> bool {
        !self.denies() && self.protocols.contains(&EgressProtocol::Tcp) && self.ports.contains(&port)
    }

    /// Whether the rule, which is about this host, is about what is asked.
    pub(super) fn fits(&self, question: &Question<'_>) -> Fit {
        let Some(port) = question.port else {
            let everything = self.ports.is_empty() && self.protocols.is_empty() && !self.rule.looks_at_requests();
            return if everything { Fit::Yes } else { Fit::Perhaps };
        };
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            return Fit::No(Miss::Port);
        }
        if !self.protocols.is_empty() && !self.protocols.iter().any(|named| question.protocol.is(*named)) {
            return Fit::No(Miss::Protocol);
        }
        if !self.rule.looks_at_requests() {
            return Fit::Yes;
        }
        match &question.request {
            None => Fit::Perhaps,
            Some(request) => self.fits_request(request),
        }
    }

    fn fits_request(&self, request: &Request<'_>) -> Fit {
        let rule = &self.rule;
        // Nobody gets past a rule that denies or asks by another case of a method's name.
        let same = |method: &String| match rule.verdict {
            RuleVerdict::Allow => method == request.method,
            RuleVerdict::Ask | RuleVerdict::Deny => method.eq_ignore_ascii_case(request.method),
        };
        if !rule.methods.is_empty() && !rule.methods.iter().any(same) {
            return Fit::No(Miss::Method);
        }
        if !self.paths.is_empty() {
            if request.path.doubt().is_some() {
                return Fit::Doubt;
            }
            let within = |prefix: &PathPrefix| match rule.verdict {
                RuleVerdict::Allow => request.path.is_within(prefix),
                RuleVerdict::Ask | RuleVerdict::Deny => request.path.may_be_within(prefix),
            };
            if !self.paths.iter().any(within) {
                return Fit::No(Miss::Path);
            }
        }
        match (rule.max_request_bytes, request.bytes) {
            (Some(most), Some(bytes)) if bytes > most.get() => Fit::No(Miss::Size),
            _ => Fit::Yes,
        }
    }

    /// The rule in words.
    pub(super) fn text(&self) -> String {
        let rule = &self.rule;
        let verdict = match rule.verdict {
            RuleVerdict::Allow => "allow",
            RuleVerdict::Ask => "ask",
            RuleVerdict::Deny => "deny",
        };
        let join = |parts: Vec<String>, between: &str| parts.join(between);
        let mut words = vec![verdict.to_owned()];
        if !rule.methods.is_empty() {
            words.push(rule.methods.join("|"));
        }
        if !self.protocols.is_empty() {
            words.push(join(
                self.protocols.iter().map(|p| p.as_str().to_owned()).collect(),
                "|",
            ));
        }
        words.push(join(self.hosts.iter().map(HostPattern::to_string).collect(), ", "));
        if !self.ports.is_empty() {
            words.push(format!(
                "port {}",
                join(self.ports.iter().map(u16::to_string).collect(), "|")
            ));
        }
        if !self.paths.is_empty() {
            words.push(format!(
                "path {}",
                join(self.paths.iter().map(|p| p.as_str().to_owned()).collect(), "|")
            ));
        }
        if let Some(most) = rule.max_request_bytes {
            words.push(format!("up to {most} bytes a request"));
        }
        words.join(" ")
    }
}

/// What no rule may be.
fn check_shape(rule: &EgressRule, level: NetworkLevel) -> Result<(), String> {
    let wrong = |why: &str| Err(why.to_owned());
    if let Some(name) = &rule.name {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return wrong("a name has 1 to 64 letters, digits, '.', '_' and '-'");
        }
    }
    if rule.hosts.is_empty() {
        return wrong("it names no host; list 'hosts', or '*' for every host");
    }
    if rule.verdict != RuleVerdict::Deny && level == NetworkLevel::None {
        return wrong("network 'none' reaches nothing, so no rule can let something out; use 'custom'");
    }
    if rule.verdict == RuleVerdict::Deny && (!rule.limits.is_unlimited() || rule.max_request_bytes.is_some()) {
        return wrong("a rule that denies has no limits and no 'max_request_bytes'; put them on the rule that allows");
    }
    if rule.ports.contains(&0) {
        return wrong("a port is a number from 1 to 65535");
    }
    if rule.ports.contains(&53) && rule.verdict != RuleVerdict::Deny {
        return wrong("port 53 is answered by the Guard itself and leads nowhere");
    }
    let token = |method: &String| {
        !method.is_empty() && method.len() <= 24 && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
    };
    if let Some(method) = rule.methods.iter().find(|method| !token(method)) {
        return Err(format!(
            "method '{}' is none; write it in capitals, like 'GET'",
            method.escape_default()
        ));
    }
    if rule.methods.iter().any(|method| method == "CONNECT") {
        return wrong("CONNECT relays to other hosts and is never let through; name those hosts");
    }
    Ok(())
}

fn protocols(rule: &EgressRule) -> Result<Vec<EgressProtocol>, String> {
    if let Some(silent) = rule.protocols.iter().find(|protocol| !protocol.has_requests())
        && rule.looks_at_requests()
    {
        return Err(format!(
            "protocol '{}' has no requests to look at; leave out methods, paths, sizes, request counts and 'inspect', or use 'https' and 'http'",
            silent.as_str()
        ));
    }
    Ok(match (rule.protocols.is_empty(), rule.verdict) {
        (false, _) => rule.protocols.clone(),
        (true, RuleVerdict::Deny) if !rule.looks_at_requests() => Vec::new(),
        (true, _) => WEB.to_vec(),
    })
}

fn ports(rule: &EgressRule, protocols: &[EgressProtocol]) -> Result<Vec<u16>, String> {
    if !rule.ports.is_empty() {
        return Ok(rule.ports.clone());
    }
    if rule.verdict == RuleVerdict::Deny {
        return Ok(Vec::new());
    }
    if rule.protocols.is_empty() {
        return Ok(DEFAULT_PORTS.to_vec());
    }
    let mut ports: Vec<u16> = protocols
        .iter()
        .map(|protocol| {
            protocol
                .default_port()
                .ok_or_else(|| "protocol 'tcp' has no port of its own; list 'ports'".to_owned())
        })
        .collect::<Result<_, _>>()?;
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}
