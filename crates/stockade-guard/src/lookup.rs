//! Looking names up, and judging every address before it is dialled.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
        ServerOrderingStrategy,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData},
    system_conf::read_system_conf,
};
use serde_json::{Value, json};
use stockade_policy::{
    EgressRules, Fault, Host, HostName,
    address::{AddressClass, AddressVerdict, classify},
    egress::is_infrastructure,
};

use crate::{GuardConfig, GuardError};

/// Answers are kept at most so long, so that a run sees a change of address.
const MAX_TTL: Duration = Duration::from_secs(60);
/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 6;

/// Looks names up at the configured name servers.
#[derive(Clone)]
pub(crate) struct Lookup {
    resolver: Arc<TokioResolver>,
    timeout: Duration,
}

/// What a name led to.
#[derive(Debug)]
pub(crate) enum Found {
    /// Addresses that may be dialled, each with the exception that opened it, and those that may not.
    Addresses {
        open: Vec<(IpAddr, Option<String>)>,
        refused: Vec<IpAddr>,
    },
    /// Nothing that may be dialled; what was seen, for the action's `args`.
    Refused(Vec<(&'static str, Value)>),
    /// No answer, or none with an address.
    Failed(String),
}

impl Lookup {
    pub(crate) fn new(config: &GuardConfig) -> Result<Self, GuardError> {
        let servers = if config.nameservers.is_empty() {
            let (system, _) = read_system_conf().map_err(|e| GuardError::Nameservers(e.to_string()))?;
            system.name_servers().to_vec()
        } else {
            config.nameservers.iter().map(|address| server(*address)).collect()
        };
        if servers.is_empty() {
            return Err(GuardError::Nameservers("the list is empty".to_owned()));
        }
        // No search list and no hosts file: what a name means must not depend on this host.
        let resolver_config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let resolver = TokioResolver::builder_with_config(resolver_config, TokioRuntimeProvider::default())
            .with_options(options(config.dns_timeout))
            .build()
            .map_err(|e| GuardError::Nameservers(e.to_string()))?;
        Ok(Self {
            resolver: Arc::new(resolver),
            timeout: config.dns_timeout,
        })
    }

    /// Looks a name up, once, and judges every address of the answer.
    pub(crate) async fn find(&self, name: &HostName, rules: &EgressRules) -> Found {
        let question = match Name::from_ascii(format!("{name}.")) {
            Ok(question) => question,
            Err(error) => return Found::Failed(format!("{name} cannot be asked for: {error}")),
        };
        let answer = match tokio::time::timeout(self.timeout, self.resolver.lookup_ip(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Found::Failed(failure(name, &error)),
            Err(_) => return Found::Failed(format!("no name server answered for {name} in time")),
        };
        for record in answer.as_lookup().answers() {
            if let RData::CNAME(alias) = &record.data {
                let text = alias.0.to_ascii();
                // Underscores and the like are no business of ours unless they hide infrastructure.
                let Ok(host) = Host::parse(&text) else { continue };
                let harmless = |name: &HostName| !is_infrastructure(name) && rules.barred(name).is_none();
                if !host.name().is_some_and(harmless) {
                    return Found::Refused(vec![("alias", json!(text))]);
                }
            }
        }
        judge(answer.iter(), rules)
    }
}

/// Judges the addresses a name led to, or one that was asked for directly.
pub(crate) fn judge(addresses: impl Iterator<Item = IpAddr>, rules: &EgressRules) -> Found {
    let mut open = Vec::new();
    let mut refused = Vec::new();
    let mut own = None;
    for address in addresses.map(|a| a.to_canonical()).take(4 * MAX_ADDRESSES) {
        match rules.address(address) {
            AddressVerdict::Reachable { class, .. } if class == AddressClass::Public && is_own(address) => {
                own = Some(address);
                refused.push(address);
            }
            AddressVerdict::Reachable { exception, .. } => open.push((address, exception)),
            AddressVerdict::Refused { .. } => refused.push(address),
        }
    }
    open.truncate(MAX_ADDRESSES);
    if !open.is_empty() {
        return Found::Addresses { open, refused };
    }
    match (refused.first(), own) {
        (_, Some(own)) => Found::Refused(vec![
            ("fault", json!(Fault::OwnAddress.as_str())),
            ("address", json!(own.to_string())),
        ]),
        (Some(address), None) => Found::Refused(vec![
            ("address", json!(address.to_string())),
            ("address_class", json!(classify(*address).as_str())),
        ]),
        (None, None) => Found::Failed("the name has no address".to_owned()),
    }
}

/// Whether an address is one of this host's own: the kernel would answer from the same one.
/// Connecting a datagram socket sends nothing.
fn is_own(address: IpAddr) -> bool {
    let unspecified: SocketAddr = match address {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let asked = std::net::UdpSocket::bind(unspecified).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    asked.is_ok_and(|local| local.ip().to_canonical() == address)
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = timeout / 4;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(Duration::from_secs(5));
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.try_tcp_on_error = true;
    options
}

fn failure(name: &HostName, error: &NetError) -> String {
    if error.is_nx_domain() {
        format!("{name} does not exist")
    } else if error.is_no_records_found() {
        format!("{name} has no address")
    } else {
        format!("the name servers did not answer for {name}: {error}")
    }
}
