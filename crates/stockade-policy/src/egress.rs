//! What an environment lets out: levels, domains, ports and names that are never let out.
//!
//! A domain entry is `host` or `*.suffix`, each with an optional `:port`.
//!
//! * `host` is that host alone; `*.suffix` is every name below `suffix` and not `suffix`.
//! * Without a port, 80 and 443 are meant, and only HTTP/1 and TLS may be spoken there.
//! * With a port, that port alone is meant; on ports other than 80 and 443 any protocol may
//!   be spoken, and the Guard sees nothing but bytes.

use stockade_domain::{Environment, NetworkLevel, PolicyVerdict, Verdict};

use crate::{
    address::{AddressRules, AddressVerdict, classify},
    host::{Host, HostName, host_and_port},
    trusted::{TRUSTED_VERSION, trusted_domains},
};

/// Names the Guard itself answers for, on port 80.
pub const INTERNAL_HOSTS: [&str; 2] = ["llm.stockade.internal", "tools.stockade.internal"];
/// The port of the internal names.
pub const INTERNAL_PORT: u16 = 80;
/// Ports meant by an entry without one.
pub const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// Names that mean this machine or its cloud whatever an environment says.
const NEVER: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
    "instance-data",
    "metadata",
];
/// Suffixes below which every name means this machine or Stockade itself, or nothing at all
/// (RFC 6761 6.4, RFC 7686).
const NEVER_BELOW: &[&str] = &["localhost", "stockade.internal", "invalid", "onion"];
/// Suffixes of private networks; only an entry that names the very host opens one.
const PRIVATE_BELOW: &[&str] = &[
    "internal",
    "local",
    "localdomain",
    "home.arpa",
    "lan",
    "intranet",
    "arpa",
];

/// What a connection speaks, as far as the Guard can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS with a readable ClientHello.
    Tls,
    /// HTTP/1 in the clear.
    Http,
    /// Anything else.
    Tcp,
    /// A name look-up.
    Dns,
}

impl Protocol {
    /// The protocol as an action's `args.protocol` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Dns => "dns",
        }
    }

    /// Reads it back; what is not known is any bytes at all.
    pub(crate) fn of(text: Option<&str>) -> Self {
        match text {
            Some("tls") => Self::Tls,
            Some("http") => Self::Http,
            Some("dns") => Self::Dns,
            _ => Self::Tcp,
        }
    }
}

/// One entry of a domain list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEntry {
    host: String,
    wildcard: bool,
    port: Option<u16>,
    trusted: bool,
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
            return wrong(
                "'*' may only stand for the leading labels, as in '*.example.com'; for every host use 'network: full'",
            );
        }
        let (host, port) = match host_and_port(rest) {
            Ok(read) => read,
            Err(error) => return wrong(&format!("{error}; write 'host', '*.suffix' or 'host:port'")),
        };
        let Host::Name(name) = host else {
            return wrong("name the host, not its address; private ranges are opened by 'address_exceptions'");
        };
        if !name.is_dotted() {
            return wrong("a name needs at least two labels");
        }
        if is_never(&name) || (wildcard && is_private_name(&name)) {
            return wrong("names of this machine, of its cloud and of private networks cannot be opened as a whole");
        }
        if port == Some(53) {
            return wrong("port 53 is answered by the Guard itself and leads nowhere");
        }
        Ok(Self {
            host: name.as_str().to_owned(),
            wildcard,
            port,
            trusted: false,
        })
    }

    fn names(&self, name: &HostName) -> bool {
        if self.wildcard {
            name.is_below(&self.host)
        } else {
            name.as_str() == self.host
        }
    }

    fn has_port(&self, port: u16) -> bool {
        self.port.map_or(DEFAULT_PORTS.contains(&port), |own| own == port)
    }

    fn is_opaque(&self, port: u16) -> bool {
        self.port == Some(port) && !DEFAULT_PORTS.contains(&port)
    }

    fn rule(&self) -> String {
        let level = if self.trusted { "trusted" } else { "custom" };
        let star = if self.wildcard { "*." } else { "" };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("env.{level}:{star}{}{port}", self.host)
    }
}

/// An environment's network, compiled.
#[derive(Debug, Clone)]
pub struct EgressRules {
    environment: String,
    level: NetworkLevel,
    entries: Vec<DomainEntry>,
    addresses: AddressRules,
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
        let mut entries: Vec<DomainEntry> = environment
            .domains
            .iter()
            .map(|text| DomainEntry::parse(text))
            .collect::<Result<_, _>>()?;
        if level == NetworkLevel::Trusted {
            for text in trusted_domains() {
                entries.push(DomainEntry {
                    trusted: true,
                    ..DomainEntry::parse(text)?
                });
            }
        }
        Ok(Self {
            environment: environment.name.clone(),
            level,
            entries,
            addresses: AddressRules::compile(&environment.address_exceptions)?,
        })
    }

    /// What the environment says to an address that a name led to.
    pub fn address(&self, address: std::net::IpAddr) -> AddressVerdict {
        self.addresses.judge(address)
    }

    /// Whether any protocol may be spoken to this port of this name: an entry names the port.
    pub fn is_opaque(&self, name: &HostName, port: u16) -> bool {
        self.entries.iter().any(|e| e.names(name) && e.is_opaque(port))
    }

    /// What the environment says to a host and, for a connection, its port.
    pub(crate) fn judge(&self, host: &Host, port: Option<u16>, protocol: Protocol) -> PolicyVerdict {
        match host {
            Host::Name(name) => self.judge_name(name, port, protocol),
            Host::Address(address) => self.judge_direct(*address, port, protocol),
        }
    }

    fn judge_name(&self, name: &HostName, port: Option<u16>, protocol: Protocol) -> PolicyVerdict {
        if INTERNAL_HOSTS.contains(&name.as_str()) {
            return match port {
                None | Some(INTERNAL_PORT) => allow("stockade.internal", "a name the Guard answers itself"),
                Some(_) => deny(
                    "stockade.internal_port",
                    "internal names answer on port 80 only, in plain HTTP",
                ),
            };
        }
        if is_never(name) {
            return deny(
                "stockade.infrastructure_name",
                "this name means the machine itself or its cloud",
            );
        }
        if self.level == NetworkLevel::None {
            return self.closed();
        }
        let named: Vec<&DomainEntry> = self.entries.iter().filter(|e| e.names(name)).collect();
        let private = is_private_name(name) || !name.is_dotted();
        if private && !named.iter().any(|e| !e.wildcard) {
            return deny(
                "stockade.infrastructure_name",
                "this name belongs to a private network; list the very host under 'domains' to open it",
            );
        }
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
            Protocol::Tls | Protocol::Http => self.opened(entry),
            Protocol::Tcp | Protocol::Dns => deny(
                "stockade.protocol",
                "only TLS and HTTP/1 may be spoken here; another protocol needs its own port in the environment's domains, like 'host:22'",
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
}

/// Whether a name means this machine, Stockade or a metadata service under every policy.
fn is_never(name: &HostName) -> bool {
    NEVER.contains(&name.as_str()) || NEVER_BELOW.iter().any(|suffix| name.is_below(suffix))
}

fn is_private_name(name: &HostName) -> bool {
    PRIVATE_BELOW
        .iter()
        .any(|suffix| name.as_str() == *suffix || name.is_below(suffix))
}

/// Whether no environment without an entry for the very host lets this name out.
pub fn is_infrastructure(name: &HostName) -> bool {
    is_never(name) || is_private_name(name)
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
