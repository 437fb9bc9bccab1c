//! A run's policy: its agent's rules over its environment's.

use std::net::IpAddr;

use serde_json::{Value, json};
use stockade_domain::{
    Action, ActionKind, AgentSpec, Digest, Environment, NetworkLevel, PolicyVerdict, Verdict, digest_of,
};

use crate::{
    address::AddressVerdict,
    credentials::Credentials,
    egress::{Bounds, EgressRules, Judged, Protocol, Question, Request, allow, deny, is_infrastructure},
    fault::Fault,
    files::FilePolicy,
    git::{GIT_HOSTS, GitOver, strictest},
    host::{Host, host_and_port},
    hosts::hosts_of,
    rules::{AgentRules, Narrowed},
    target::RequestPath,
    trusted::{TRUSTED, TRUSTED_VERSION},
};

/// Changes when the same rules would decide differently, so that no approval outlives it.
const SEMANTICS: u32 = 4;

/// Why rules do not compile. Nothing runs under rules that do not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule is wrong.
    #[error("rule '{rule}' of agent '{agent}': {cause}")]
    Rule {
        /// The agent.
        agent: String,
        /// The rule's id.
        rule: String,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The environment is wrong.
    #[error("environment '{environment}': {cause}")]
    Environment {
        /// Its name.
        environment: String,
        /// What is wrong and what to do.
        cause: String,
    },
}

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Policy {
    agent: String,
    environment: String,
    rules: AgentRules,
    egress: EgressRules,
    files: FilePolicy,
    pub(crate) git: GitOver,
    pub(crate) credentials: Credentials,
    version: Digest,
}

impl Policy {
    /// Compiles the policy of a run.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the rule or environment that is wrong.
    pub fn compile(agent: &AgentSpec, environment: &Environment) -> Result<Self, PolicyError> {
        let rules = AgentRules::compile(agent)?;
        let wrong = |cause| PolicyError::Environment {
            environment: environment.name.clone(),
            cause,
        };
        let egress = EgressRules::compile(environment).map_err(wrong)?;
        let files = FilePolicy::compile(&environment.files).map_err(wrong)?;
        let git = GitOver::compile(&environment.git).map_err(wrong)?;
        Ok(Self {
            agent: agent.name.clone(),
            environment: environment.name.clone(),
            version: version(agent, environment, &files),
            rules,
            egress,
            files,
            git,
            credentials: Credentials::of(environment),
        })
    }

    /// Digest of everything that decides, the trusted list included; approvals are bound to it.
    pub fn version(&self) -> Digest {
        self.version
    }

    /// What the policy says to an action.
    ///
    /// For most kinds the agent's first matching rule decides, then the kind's default. For
    /// egress, for git, and for files that are written or exported, the environment decides and
    /// the agent's rules only narrow: they ask or deny.
    pub fn evaluate(&self, action: &Action) -> PolicyVerdict {
        let git = self.git.judge(action);
        let files = match action.kind {
            ActionKind::Egress if git.is_none() => return self.evaluate_egress(action),
            ActionKind::Credential => return self.credentials.judge(action, &self.rules),
            ActionKind::Tool | ActionKind::Permission => self.files.judge_write(action),
            ActionKind::Export => self.files.judge_export(action),
            ActionKind::Egress | ActionKind::Model => None,
        };
        let found = [git, files, self.rules.verdict(action)];
        strictest(found.into_iter().flatten()).unwrap_or_else(|| default_verdict(action.kind))
    }

    /// The environment's file rules.
    pub fn files(&self) -> &FilePolicy {
        &self.files
    }

    /// The environment's network, for the Guard.
    pub fn egress(&self) -> &EgressRules {
        &self.egress
    }

    /// Whether any rule looks at requests, so that [`Policy::inspection_rule`] may name one.
    pub fn looks_at_requests(&self) -> bool {
        self.egress.looks_at_requests() || self.rules.look_at_requests() || self.git.has_hosts()
    }

    /// The rule of environment or agent for which connections to this port of this host have to be
    /// read, because it looks at requests: TLS is inspected there, HTTP is judged request by
    /// request. A connection that will be says so (`args.inspected`); one that says nothing is
    /// refused.
    pub fn inspection_rule(&self, host: &Host, port: u16) -> Option<String> {
        if !self.looks_at_requests() {
            return None;
        }
        [Protocol::Tls, Protocol::Http].into_iter().find_map(|protocol| {
            let question = Question {
                port: Some(port),
                protocol,
                request: None,
            };
            let judged = self.egress.judge(host, &question);
            if judged.verdict.verdict == Verdict::Deny {
                return None;
            }
            judged
                .inspect
                .or_else(|| match self.narrow("connect", &[host.to_string()], &question) {
                    Narrowed::Request(rule) => Some(rule),
                    Narrowed::Said(_) | Narrowed::Silent => None,
                })
                .or_else(|| self.git.reads(host, Some(port), protocol).then(|| GIT_HOSTS.to_owned()))
        })
    }

    /// Limits of the environment's rules that let an egress action out, also where an agent's
    /// rule asked about it: one for each name it goes by. Those on the whole run are
    /// [`EgressRules::traffic`].
    pub fn bounds(&self, action: &Action) -> Vec<Bounds> {
        let Ok(asked) = Asked::read(action) else {
            return Vec::new();
        };
        let mut bounds: Vec<Bounds> = Vec::new();
        for host in hosts_of(action) {
            let own = self.egress.judge(&host, &asked.question()).bounds();
            bounds.extend(own.filter(|own| !bounds.contains(own)));
        }
        bounds
    }

    fn evaluate_egress(&self, action: &Action) -> PolicyVerdict {
        let asked = match Asked::read(action) {
            Ok(asked) => asked,
            Err(refused) => return refused,
        };
        if let Some(refused) = refused_by_evidence(action, &asked.host, asked.port) {
            return refused;
        }
        if let Some(refused) = self.barred_alias(action) {
            return refused;
        }
        let question = asked.question();
        let judged = names_behind(action, &asked.host)
            .iter()
            .fold(self.egress.judge(&asked.host, &question), |judged, name| {
                judged.stricter(self.egress.judge(name, &question))
            });
        if judged.verdict.verdict == Verdict::Deny {
            return judged.verdict;
        }
        if let Some(refused) = self.refused_address(action) {
            return refused;
        }
        self.with_agent(action, &asked, judged)
    }

    /// Lays the agent's rules over what the environment allows, and refuses a connection that
    /// has to be read and will not be.
    fn with_agent(&self, action: &Action, asked: &Asked<'_>, judged: Judged<'_>) -> PolicyVerdict {
        let narrowed = self.narrow(&action.operation, &names(action, &asked.host), &asked.question());
        if let Narrowed::Said(said) = &narrowed
            && said.verdict == Verdict::Deny
        {
            return said.clone();
        }
        let wants = match (&judged.inspect, &narrowed) {
            (Some(rule), _) | (None, Narrowed::Request(rule)) => Some(rule.as_str()),
            _ if self.git.reads(&asked.host, asked.port, asked.protocol) => Some(GIT_HOSTS),
            _ => None,
        };
        if let Some(rule) = wants.filter(|_| !asked.inspected) {
            return deny(
                "stockade.needs_inspection",
                &format!("{rule} looks at requests there, so only connections that the Guard reads are let through"),
            );
        }
        match narrowed {
            Narrowed::Said(said) if said.verdict == Verdict::Hold && judged.verdict.verdict == Verdict::Allow => said,
            Narrowed::Request(rule) if judged.inspect.is_none() && judged.verdict.verdict == Verdict::Allow => {
                allow("env.inspected", &format!("judged request by request, as {rule} wants"))
            }
            _ => judged.verdict,
        }
    }

    /// A name that this one stands for, where a rule denies it.
    fn barred_alias(&self, action: &Action) -> Option<PolicyVerdict> {
        let alias = text(action, "alias").and_then(|alias| Host::parse(alias).ok())?;
        self.egress.barred(alias.name()?)
    }

    /// An address that the name led to, where the Guard refused it.
    fn refused_address(&self, action: &Action) -> Option<PolicyVerdict> {
        let value = action.args.get("address")?;
        let Some(address) = value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) else {
            return Some(deny("stockade.address", "the name led to something that is no address"));
        };
        match self.egress.address(address) {
            AddressVerdict::Reachable { .. } => None,
            AddressVerdict::Refused { class } => Some(deny(
                "stockade.address",
                &format!(
                    "the name leads to {address}, a {} address; only an address exception of the environment opens those",
                    class.as_str()
                ),
            )),
        }
    }

    /// What the agent's rules say to the names of a destination; the strictest answer counts.
    fn narrow(&self, operation: &str, names: &[String], question: &Question<'_>) -> Narrowed {
        let mut answer = Narrowed::Silent;
        for name in names {
            answer = match (self.rules.narrow(operation, name, question), answer) {
                (Narrowed::Said(said), _) if said.verdict == Verdict::Deny => return Narrowed::Said(said),
                (Narrowed::Request(rule), _) | (_, Narrowed::Request(rule)) => Narrowed::Request(rule),
                (Narrowed::Said(said), _) if said.verdict == Verdict::Hold => Narrowed::Said(said),
                (_, earlier) => earlier,
            };
        }
        answer
    }

    /// Of whom and what this policy is made: agent and environment.
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.agent, &self.environment)
    }
}

/// The names that a connection to a bare address gives itself: what the environment says to them
/// counts too.
fn names_behind(action: &Action, host: &Host) -> Vec<Host> {
    if matches!(host, Host::Name(_)) {
        // There every name is the same one; see `refused_by_evidence`.
        return Vec::new();
    }
    let read = |key| text(action, key).and_then(|name| host_and_port(name).ok());
    let named = ["sni", "authority"].into_iter().filter_map(read);
    named.map(|(name, _)| name).filter(|name| name != host).collect()
}

/// Every name of a destination, canonical where it is one.
fn names(action: &Action, host: &Host) -> Vec<String> {
    let mut names = vec![host.to_string()];
    for key in ["sni", "authority", "alias"] {
        names.extend(text(action, key).map(|name| match host_and_port(name) {
            Ok((host, _)) => host.to_string(),
            Err(_) => name.to_lowercase(),
        }));
    }
    names
}

/// What an egress action asks for.
struct Asked<'a> {
    host: Host,
    port: Option<u16>,
    protocol: Protocol,
    inspected: bool,
    request: Option<(&'a str, RequestPath, Option<u64>)>,
}

impl<'a> Asked<'a> {
    fn read(action: &'a Action) -> Result<Self, PolicyVerdict> {
        let (host, port) = destination(action)?;
        let protocol = Protocol::of(text(action, "protocol"));
        let request = match action.operation.as_str() {
            "request" => Some(request(action, protocol)?),
            _ => None,
        };
        Ok(Self {
            host,
            port,
            protocol,
            inspected: request.is_some() || port.is_none() || action.args.get("inspected") == Some(&Value::Bool(true)),
            request,
        })
    }

    fn question(&self) -> Question<'_> {
        let request = self.request.as_ref().map(|(method, path, bytes)| Request {
            method,
            path,
            bytes: *bytes,
        });
        Question {
            port: self.port,
            protocol: self.protocol,
            request,
        }
    }
}

/// The method, path and size of a request.
fn request(action: &Action, protocol: Protocol) -> Result<(&str, RequestPath, Option<u64>), PolicyVerdict> {
    if !protocol.shows_requests() {
        return Err(deny("stockade.operation", "a request is made over https or http"));
    }
    let method = text(action, "method").filter(|method| !method.is_empty());
    let method = method.ok_or_else(|| deny("stockade.operation", "the request names no method"))?;
    let target = text(action, "path").ok_or_else(|| deny("stockade.operation", "the request names no path"))?;
    let path = match (method, target) {
        ("OPTIONS", "*") => RequestPath::asterisk(),
        _ => RequestPath::parse(target.split('?').next().unwrap_or_default())
            .map_err(|error| deny("stockade.malformed", &format!("the path is malformed: {error}")))?,
    };
    let bytes = match action.args.get("bytes") {
        None => None,
        Some(bytes) => Some(
            bytes
                .as_u64()
                .ok_or_else(|| deny("stockade.operation", "the request's size is no number"))?,
        ),
    };
    Ok((method, path, bytes))
}

/// The host and port an egress action names.
fn destination(action: &Action) -> Result<(Host, Option<u16>), PolicyVerdict> {
    let host = text(action, "host").ok_or_else(|| deny("stockade.host", "the action names no host"))?;
    let host = Host::parse(host).map_err(|error| deny("stockade.host", &format!("no valid host: {error}")))?;
    let port = match action.args.get("port") {
        None => None,
        Some(port) => match port.as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => Some(port),
            _ => return Err(deny("stockade.port", "a port is a number from 1 to 65535")),
        },
    };
    match (action.operation.as_str(), port) {
        ("resolve", None) | ("connect" | "request", Some(_)) => Ok((host, port)),
        _ => Err(deny(
            "stockade.operation",
            "an egress action resolves a name, connects to a port or makes a request there",
        )),
    }
}

/// What the Guard saw that no environment can allow.
fn refused_by_evidence(action: &Action, host: &Host, port: Option<u16>) -> Option<PolicyVerdict> {
    if let Some(fault) = Fault::of(&action.args) {
        return Some(match fault {
            Ok(fault) => deny(fault.rule(), fault.reason()),
            Err(code) => deny("stockade.refused", &format!("refused by the Guard: {code}")),
        });
    }
    if let Some(sni) = action.args.get("sni") {
        let sni = sni.as_str().and_then(|sni| Host::parse(sni).ok());
        if let Some(refused) = mismatch("the TLS server name", sni, host) {
            return Some(refused);
        }
    }
    if let Some(authority) = action.args.get("authority") {
        let default = if text(action, "protocol") == Some("https") {
            443
        } else {
            80
        };
        let named = authority.as_str().and_then(|text| host_and_port(text).ok());
        if named
            .as_ref()
            .is_some_and(|(_, own)| own.unwrap_or(default) != port.unwrap_or(default))
        {
            return Some(deny(
                "stockade.name_mismatch",
                "the HTTP host names another port than the connection's",
            ));
        }
        if let Some(refused) = mismatch("the HTTP host", named.map(|(host, _)| host), host) {
            return Some(refused);
        }
    }
    if let Some(alias) = text(action, "alias") {
        let harmless = Host::parse(alias).is_ok_and(|host| host.name().is_none_or(|name| !is_infrastructure(name)));
        if !harmless {
            return Some(deny(
                "stockade.infrastructure_name",
                &format!(
                    "the name is an alias of '{}', which belongs to infrastructure",
                    alias.escape_default()
                ),
            ));
        }
    }
    None
}

/// All names of one connection must agree. Where the destination is a bare address, a name
/// has nothing to agree with; it must only be no infrastructure's.
fn mismatch(what: &str, named: Option<Host>, host: &Host) -> Option<PolicyVerdict> {
    let agrees = match (&named, host) {
        (Some(named), Host::Name(_)) => named == host,
        (Some(Host::Name(name)), Host::Address(_)) => !is_infrastructure(name),
        (Some(named @ Host::Address(_)), Host::Address(_)) => named == host,
        (None, _) => false,
    };
    (!agrees).then(|| {
        deny(
            "stockade.name_mismatch",
            &format!("{what} is not the name the connection was opened for ({host})"),
        )
    })
}

fn text<'a>(action: &'a Action, key: &str) -> Option<&'a str> {
    action.args.get(key).and_then(Value::as_str)
}

fn version(agent: &AgentSpec, environment: &Environment, files: &FilePolicy) -> Digest {
    let trusted = (environment.network == NetworkLevel::Trusted).then(|| {
        let domains: Vec<_> = TRUSTED.iter().map(|category| category.domains).collect();
        json!({ "version": TRUSTED_VERSION, "domains": domains })
    });
    digest_of(&json!({
        "semantics": SEMANTICS, "rules": agent.rules, "environment": environment, "trusted": trusted,
        "sensitive": files.list(),
    }))
}

pub(crate) fn default_verdict(kind: ActionKind) -> PolicyVerdict {
    let (verdict, reason) = match kind {
        ActionKind::Tool => (Verdict::Allow, "tools run inside the sandbox"),
        ActionKind::Model => (Verdict::Allow, "model calls go through the gateway"),
        ActionKind::Export => (Verdict::Allow, "the change is what the run is for"),
        ActionKind::Permission => (Verdict::Hold, "the agent asks and no rule answers"),
        ActionKind::Egress => (Verdict::Deny, "no rule allows this destination"),
        ActionKind::Credential => (Verdict::Deny, "no rule lets the agent use this secret"),
    };
    PolicyVerdict {
        verdict,
        rule: format!("default.{}", kind.as_str()),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
