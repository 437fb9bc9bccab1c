//! What an environment lets out: rules, then the level with its list of domains, and names that
//! are never let out.
//!
//! The order of answers: names of the installation itself, names of machines and clouds, the
//! environment's rules (those that deny first), the level. A rule that lets something out to a
//! port of a host speaks for it: what no such rule fits is refused there, even where the level
//! lists the host.
//!
//! A domain entry is `host` or `*.suffix`, each with an optional `:port`.
//!
//! * `host` is that host alone; `*.suffix` is every name below `suffix` and not `suffix`.
//! * Without a port, 80 and 443 are meant, and only HTTP/1 and TLS may be spoken there.
//! * With a port, that port alone is meant; on ports other than 80 and 443 any protocol may
//!   be spoken, and the Guard sees nothing but bytes.

mod entry;
mod names;
mod pattern;
mod protocol;
mod rule;
mod rule_set;

use stockade_domain::{Environment, ExplainedStep, NetworkLevel, PolicyVerdict, RuleVerdict, TrafficLimits, Verdict};

use crate::{
    address::{AddressRules, AddressVerdict, classify},
    host::{Host, HostName},
    trusted::{TRUSTED_VERSION, trusted_domains},
};

pub use entry::{DEFAULT_PORTS, DomainEntry};
pub use names::{INTERNAL_HOSTS, INTERNAL_PORT, PROXY_HOST, PROXY_PORT, is_infrastructure};
pub use pattern::HostPattern;
pub use protocol::Protocol;
pub(crate) use rule::{Question, Request};

use names::{is_never, is_private_name};
use pattern::HostIndex;
use rule::CompiledRule;
use rule_set::{RuleSet, Ruling};

/// An environment's network, compiled.
#[derive(Debug, Clone)]
pub struct EgressRules {
    environment: String,
    level: NetworkLevel,
    rules: RuleSet,
    entries: Vec<DomainEntry>,
    index: HostIndex,
    addresses: AddressRules,
    traffic: TrafficLimits,
}

/// What the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Judged<'a> {
    /// The verdict; for a connection that must be read it holds if it is read.
    pub(crate) verdict: PolicyVerdict,
    /// The rule that looks at requests, where only those can tell.
    pub(crate) inspect: Option<String>,
    rule: Option<&'a CompiledRule>,
}

/// Limits on something that a rule lets out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The rule, by its id.
    pub rule: String,
    /// Its limits, over the whole run.
    pub limits: TrafficLimits,
    /// Largest content of one request, in bytes, to be held also where a request does not say
    /// how long it is.
    pub max_request_bytes: Option<u64>,
}

impl<'a> Judged<'a> {
    /// The stricter of two answers about one connection.
    pub(crate) fn stricter(self, other: Judged<'a>) -> Self {
        let rank = |judged: &Judged<'_>| match judged.verdict.verdict {
            Verdict::Deny | Verdict::Stop => 2,
            Verdict::Hold => 1,
            Verdict::Allow => 0,
        };
        let (mut chosen, left) = if rank(&other) > rank(&self) {
            (other, self)
        } else {
            (self, other)
        };
        chosen.inspect = chosen.inspect.or(left.inspect);
        chosen
    }

    fn of(verdict: PolicyVerdict) -> Self {
        Self {
            verdict,
            inspect: None,
            rule: None,
        }
    }

    /// Limits of the rule that answered.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        self.rule.map(|rule| Bounds {
            rule: rule.id(),
            limits: rule.rule.limits,
            max_request_bytes: rule.rule.max_request_bytes.map(std::num::NonZeroU64::get),
        })
    }
}

impl EgressRules {
    /// Compiles the network part of an environment.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what to do.
    pub fn compile(environment: &Environment) -> Result<Self, String> {
        let level = environment.network;
        if level == NetworkLevel::Full && !environment.acknowledge_full_network {
            return Err(
                "network 'full' lets an agent send anything anywhere; set 'acknowledge_full_network: true' to accept that, \
                 or use 'custom' with a list of domains"
                    .to_owned(),
            );
        }
        if level == NetworkLevel::None && !environment.domains.is_empty() {
            return Err(
                "network 'none' reaches nothing, but domains are listed; remove them or use 'custom'".to_owned(),
            );
        }
        let own = environment.domains.iter().map(|text| DomainEntry::parse(text));
        let curated = trusted_domains().filter(|_| level == NetworkLevel::Trusted);
        let entries: Vec<DomainEntry> = own.chain(curated.map(DomainEntry::trusted)).collect::<Result<_, _>>()?;
        let mut index = HostIndex::default();
        for (place, entry) in entries.iter().enumerate() {
            index.add(&entry.hosts, place);
        }
        Ok(Self {
            environment: environment.name.clone(),
            level,
            rules: RuleSet::compile(&environment.egress, level)?,
            entries,
            index,
            addresses: AddressRules::compile(&environment.address_exceptions)?,
            traffic: environment.traffic,
        })
    }

    /// What the environment says to an address that a name led to.
    pub fn address(&self, address: std::net::IpAddr) -> AddressVerdict {
        self.addresses.judge(address)
    }

    /// Limits on all that one run sends and receives.
    pub fn traffic(&self) -> &TrafficLimits {
        &self.traffic
    }

    /// Whether any rule has limits of its own.
    pub fn limits_rules(&self) -> bool {
        self.rules.limited().next().is_some()
    }

    /// Limits of the rule with this id.
    pub fn limits_of(&self, rule: &str) -> Option<TrafficLimits> {
        let mut rules = self.rules.limited();
        rules.find(|(id, _)| id == rule).map(|(_, limits)| limits)
    }

    /// Whether any protocol may be spoken to this port of this name, also by the server first:
    /// an entry names the port, or a rule `tcp`.
    pub fn is_opaque(&self, name: &HostName, port: u16) -> bool {
        self.entries_of(name).any(|entry| entry.is_opaque(port))
            || self.rules.is_opaque(&Host::Name(name.clone()), port)
    }

    /// The suffix below which this name is one of as many as anybody likes: that of the widest wildcard
    /// that lets it out, or its last two labels where every host is let out. `None` for a name that
    /// an entry or a rule spells out.
    pub fn wildcard(&self, name: &HostName) -> Option<String> {
        let host = Host::Name(name.clone());
        if self.entries_of(name).any(DomainEntry::is_exact) || self.rules.opens_exactly(&host, name.as_str()) {
            return None;
        }
        let listed = self.entries_of(name).map(|entry| &entry.hosts);
        let patterns = listed.chain(self.rules.opening(&host));
        let suffix = |pattern: &HostPattern| match pattern {
            HostPattern::Below(suffix) => Some(suffix.clone()),
            HostPattern::Exact(_) | HostPattern::All => None,
        };
        let widest = match self.level {
            NetworkLevel::Full => None,
            _ => patterns.filter_map(suffix).min_by_key(String::len),
        };
        Some(widest.unwrap_or_else(|| {
            let labels: Vec<&str> = name.as_str().rsplit('.').take(2).collect();
            labels.into_iter().rev().collect::<Vec<_>>().join(".")
        }))
    }

    fn entries_of(&self, name: &HostName) -> impl Iterator<Item = &DomainEntry> {
        self.index.of_name(name).into_iter().map(|place| &self.entries[place])
    }

    /// Whether a rule looks at requests.
    pub(crate) fn looks_at_requests(&self) -> bool {
        self.rules.looks_at_requests()
    }

    /// What the environment says to a host and what is asked of it.
    pub(crate) fn judge(&self, host: &Host, question: &Question<'_>) -> Judged<'_> {
        if let Host::Name(name) = host
            && let Some(fixed) = self.fixed(host, name, question.port)
        {
            return Judged::of(fixed);
        }
        if let Host::Address(address) = host
            && (self.level != NetworkLevel::Full || !self.addresses.judge(*address).is_reachable())
        {
            return Judged::of(self.judge_level(host, question));
        }
        match self.rules.judge(host, question) {
            Ruling::Rule(rule) => Judged {
                verdict: self.said_by(rule),
                inspect: None,
                rule: Some(rule),
            },
            Ruling::Doubt(doubt) => Judged::of(deny(
                "stockade.ambiguous_path",
                &format!("a rule looks at the path and {}", doubt.reason()),
            )),
            Ruling::Ungranted(rule, miss) => Judged::of(deny(
                "env.egress",
                &format!(
                    "rules of environment '{}' say what may be asked there, and none fits; {} does not because {}",
                    self.environment,
                    rule.id(),
                    miss.why()
                ),
            )),
            Ruling::Silent => Judged::of(self.judge_level(host, question)),
            Ruling::Request { rule, beyond } => {
                let level = beyond.then(|| self.judge_level(host, question));
                match level.filter(|level| level.verdict == Verdict::Deny) {
                    Some(refused) => Judged::of(refused),
                    None => Judged {
                        verdict: allow(
                            "env.inspected",
                            &format!("judged request by request, as {} wants", rule.id()),
                        ),
                        inspect: Some(rule.id()),
                        rule: None,
                    },
                }
            }
        }
    }

    /// What holds under every level and rule.
    fn fixed(&self, host: &Host, name: &HostName, port: Option<u16>) -> Option<PolicyVerdict> {
        if INTERNAL_HOSTS.contains(&name.as_str()) {
            return Some(match port {
                None | Some(INTERNAL_PORT) => allow("stockade.internal", "a name the Guard answers itself"),
                Some(_) => deny(
                    "stockade.internal_port",
                    "internal names answer on port 80 only, in plain HTTP",
                ),
            });
        }
        if name.as_str() == PROXY_HOST {
            return Some(match port {
                None => allow("stockade.internal", "a name the Guard answers itself"),
                Some(_) => deny(
                    "stockade.proxy",
                    "the proxy answers at http://proxy.stockade.internal:3128, inside the sandbox alone, and leads not to itself",
                ),
            });
        }
        if is_never(name) {
            return Some(deny(
                "stockade.infrastructure_name",
                "this name means the machine itself or its cloud",
            ));
        }
        if self.level == NetworkLevel::None {
            return Some(self.closed());
        }
        let private = is_private_name(name) || !name.is_dotted();
        let opened =
            || self.entries_of(name).any(DomainEntry::is_exact) || self.rules.opens_exactly(host, name.as_str());
        (private && !opened()).then(|| {
            deny(
                "stockade.infrastructure_name",
                "this name belongs to a private network; list the very host under 'domains' to open it",
            )
        })
    }

    /// What a rule that denies a name whatever is asked of it says: also where it is another name's alias.
    pub fn barred(&self, name: &HostName) -> Option<PolicyVerdict> {
        let question = Question {
            port: None,
            protocol: Protocol::Dns,
            request: None,
        };
        match self.rules.judge(&Host::Name(name.clone()), &question) {
            Ruling::Rule(rule) if rule.denies() => Some(self.said_by(rule)),
            _ => None,
        }
    }

    fn said_by(&self, rule: &CompiledRule) -> PolicyVerdict {
        let said = match rule.rule.verdict {
            RuleVerdict::Allow => Verdict::Allow,
            RuleVerdict::Ask => Verdict::Hold,
            RuleVerdict::Deny => Verdict::Deny,
        };
        let reason = match rule.rule.reason.as_str() {
            "" => format!("environment '{}': {}", self.environment, rule.text()),
            reason => reason.to_owned(),
        };
        verdict(said, &rule.id(), &reason)
    }

    fn judge_level(&self, host: &Host, question: &Question<'_>) -> PolicyVerdict {
        match host {
            Host::Name(name) => self.judge_name(name, question.port, question.protocol),
            Host::Address(address) => self.judge_direct(*address, question.port, question.protocol),
        }
    }

    fn judge_name(&self, name: &HostName, port: Option<u16>, protocol: Protocol) -> PolicyVerdict {
        let named: Vec<&DomainEntry> = self.entries_of(name).collect();
        if named.is_empty() && self.level != NetworkLevel::Full {
            return self.closed();
        }
        let Some(port) = port else {
            return self.opened(named.first().copied());
        };
        let Some(entry) = named
            .iter()
            .find(|e| e.is_opaque(port))
            .or_else(|| named.iter().find(|e| e.has_port(port)))
        else {
            if self.level == NetworkLevel::Full && DEFAULT_PORTS.contains(&port) {
                return self.spoken(protocol, None);
            }
            return deny(
                "env.port",
                &format!(
                    "port {port} of this host is not open in environment '{}'; list '{name}:{port}' to open it",
                    self.environment
                ),
            );
        };
        if entry.is_opaque(port) {
            return self.opened(Some(entry));
        }
        self.spoken(protocol, Some(entry))
    }

    /// On the web's ports only what the Guard can read is let through.
    fn spoken(&self, protocol: Protocol, entry: Option<&DomainEntry>) -> PolicyVerdict {
        match protocol {
            Protocol::Tls | Protocol::Https | Protocol::Http => self.opened(entry),
            Protocol::Ssh | Protocol::Postgres | Protocol::Tcp | Protocol::Dns => deny(
                "stockade.protocol",
                "only TLS and HTTP/1 may be spoken here; another protocol needs a rule, or its own port in the environment's domains, like 'host:22'",
            ),
        }
    }

    /// A connection to an address that no name led to.
    fn judge_direct(&self, address: std::net::IpAddr, port: Option<u16>, protocol: Protocol) -> PolicyVerdict {
        let class = classify(address).as_str();
        let reachable = self.addresses.judge(address).is_reachable();
        match (self.level, port) {
            (NetworkLevel::Full, Some(port)) if reachable && DEFAULT_PORTS.contains(&port) => {
                self.spoken(protocol, None)
            }
            (NetworkLevel::Full, Some(port)) if reachable => deny(
                "env.port",
                &format!("port {port} of a bare address is not open; connect by name"),
            ),
            _ => deny(
                "stockade.direct_address",
                &format!("a {class} address that no allowed name led to; connect by name"),
            ),
        }
    }

    fn opened(&self, entry: Option<&DomainEntry>) -> PolicyVerdict {
        match entry {
            Some(entry) => allow(
                &entry.rule(),
                &match entry.trusted {
                    true => format!("on the trusted list {TRUSTED_VERSION}"),
                    false => format!("listed in environment '{}'", self.environment),
                },
            ),
            None => allow(
                "env.full",
                &format!("environment '{}' reaches every public host", self.environment),
            ),
        }
    }

    fn closed(&self) -> PolicyVerdict {
        let environment = &self.environment;
        match self.level {
            NetworkLevel::None => deny("env.none", &format!("environment '{environment}' reaches nothing")),
            NetworkLevel::Trusted => deny(
                "env.trusted",
                &format!("not on the trusted list {TRUSTED_VERSION} and not listed in environment '{environment}'"),
            ),
            NetworkLevel::Custom | NetworkLevel::Full => {
                deny("env.custom", &format!("not listed in environment '{environment}'"))
            }
        }
    }

    /// The way to the environment's answer: the rules that were asked, and the level where it was.
    pub(crate) fn steps(&self, host: &Host, question: &Question<'_>) -> Vec<ExplainedStep> {
        if let Host::Name(name) = host
            && self.fixed(host, name, question.port).is_some()
        {
            return Vec::new();
        }
        let mut steps = self.rules.steps(host, question);
        if matches!(self.rules.judge(host, question), Ruling::Silent) {
            let said = self.judge_level(host, question);
            steps.push(ExplainedStep {
                rule: said.rule,
                index: None,
                name: None,
                text: self.level_text(),
                names_host: true,
                decided: true,
                why: said.reason,
            });
        }
        steps
    }

    fn level_text(&self) -> String {
        let own = self.entries.iter().filter(|entry| !entry.trusted).count();
        match self.level {
            NetworkLevel::None => "network 'none'".to_owned(),
            NetworkLevel::Trusted => format!("network 'trusted': the list {TRUSTED_VERSION} and {own} domains"),
            NetworkLevel::Custom => format!("network 'custom': {own} domains"),
            NetworkLevel::Full => "network 'full': every public host".to_owned(),
        }
    }

    /// The rules in words, one line each, in the order they are asked, and the level behind them.
    pub fn explain(&self) -> Vec<String> {
        let mut lines = self.rules.lines();
        lines.push(self.level_text());
        lines
    }
}

pub(crate) fn allow(rule: &str, reason: &str) -> PolicyVerdict {
    verdict(Verdict::Allow, rule, reason)
}

pub(crate) fn deny(rule: &str, reason: &str) -> PolicyVerdict {
    verdict(Verdict::Deny, rule, reason)
}

fn verdict(verdict: Verdict, rule: &str, reason: &str) -> PolicyVerdict {
    PolicyVerdict {
        verdict,
        rule: rule.to_owned(),
        reason: reason.to_owned(),
    }
}
