//! The environment in which the world's names are open or closed, and the names themselves.

use std::net::{IpAddr, Ipv4Addr};

use stockade_domain::{
    AddressException, CredentialBinding, CredentialKind, EgressProtocol, EgressRule, Environment, NetworkLevel,
    RuleVerdict, RunSpec,
};

use super::{BAD, BARRED, DENIED, KEYED, Known, OTHER, PLAIN, READ, WIDE, Zone};

/// Where the world's servers are, in a range that is nobody's (RFC 5737). The realm opens it with a reason.
const OPENED_RANGE: &str = "198.51.100.0/24";
/// The variable that holds the credential's placeholder.
pub(crate) const VARIABLE: &str = "WORLD_TOKEN";
/// The paths of [`KEYED`] that the credential is for begin so.
pub(crate) const BOUND: &str = "/keyed";

/// Open names that lead where nobody may go: `NAME.world.test` and an address. Metadata, private, shared, loopback,
/// link-local, unspecified, multicast and broadcast addresses, and IPv4 inside IPv6 in every way there is (RFC 4291,
/// 6052, 3056, 4380, 5214).
pub(crate) const ODD: [(&str, &str); 20] = [
    ("metadata", "169.254.169.254"),
    ("metadata6", "fd00:ec2::254"),
    ("ten", "10.0.0.1"),
    ("private", "192.168.0.1"),
    ("private12", "172.16.0.1"),
    ("shared", "100.64.0.1"),
    ("loop", "127.0.0.1"),
    ("loop8", "127.8.8.8"),
    ("loop6", "::1"),
    ("zero", "0.0.0.0"),
    ("zero6", "::"),
    ("link6", "fe80::1"),
    ("unique6", "fd12:3456::1"),
    ("mapped", "::ffff:127.0.0.1"),
    ("compatible", "::7f00:1"),
    ("nat64", "64:ff9b::a9fe:a9fe"),
    ("sixtofour", "2002:7f00:1::1"),
    ("teredo", "2001:0:7f00:1::8080:8080"),
    ("isatap", "2600::5efe:127.0.0.1"),
    ("multicast", "224.0.0.251"),
];

/// Open names that change or mix their addresses, or stand for another.
const TRICKS: [&str; 7] = [
    "rebind",
    "rebind169",
    "mixed",
    "alias-metadata",
    "alias-private",
    "alias-local",
    "alias-barred",
];

/// Where a host of the world is.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    let last = match host {
        PLAIN | OTHER => 10,
        READ => 11,
        KEYED => 12,
        WIDE => 13,
        DENIED => 66,
        bad => 20 + u8::try_from(BAD.iter().position(|known| *known == bad)?).ok()?,
    };
    Some(Ipv4Addr::new(198, 51, 100, last).into())
}

fn below(name: &str) -> String {
    format!("{name}.world.test")
}

/// Tells the name server what there is. Closed names are there too: whoever gets to ask is answered.
pub(super) fn name(zone: &Zone) {
    let at = |address: IpAddr| Known::At(vec![address]);
    for host in [PLAIN, OTHER, READ, KEYED, DENIED].into_iter().chain(BAD) {
        if let Some(address) = address(host) {
            zone.set(host, at(address));
        }
    }
    let sink = Ipv4Addr::new(198, 51, 100, 66).into();
    // Whatever else is asked for leads to the sink; below the open suffix to the server there.
    zone.set("*.test", at(sink));
    if let Some(wide) = address(WIDE) {
        zone.set(&format!("*.{WIDE}"), at(wide));
    }
    zone.set(BARRED, at(sink));
    for (name, address) in ODD {
        if let Ok(address) = address.parse() {
            zone.set(&below(name), at(address));
        }
    }
    let plain: Vec<IpAddr> = address(PLAIN).into_iter().collect();
    let to = |text: &str| text.parse().into_iter().collect::<Vec<IpAddr>>();
    zone.set(&below("rebind"), Known::Then(plain.clone(), to("127.0.0.1")));
    zone.set(&below("rebind169"), Known::Then(plain, to("169.254.169.254")));
    let mixed = ["10.0.0.1", "169.254.169.254", "127.0.0.1"];
    zone.set(&below("mixed"), Known::At(mixed.into_iter().flat_map(to).collect()));
    for (name, other, address) in [
        ("alias-metadata", "metadata.google.internal", "198.51.100.66"),
        ("alias-private", "ten.world.test", "10.0.0.1"),
        ("alias-local", "localhost", "127.0.0.1"),
        ("alias-barred", BARRED, "198.51.100.66"),
    ] {
        zone.set(&below(name), Known::Alias(other.to_owned()));
        zone.set(other, Known::At(to(address)));
    }
}

/// What runs in the realm are frozen with: everything of the installation's but what its network lets out.
pub(crate) fn realm(mut spec: RunSpec) -> RunSpec {
    spec.agent.rules = Vec::new();
    let environment = &mut spec.environment;
    let own = Environment::named("realm", NetworkLevel::Custom);
    environment.name = own.name;
    environment.network = own.network;
    environment.traffic = own.traffic;
    environment.domains = [PLAIN, OTHER].map(str::to_owned).to_vec();
    environment.domains.push(format!("*.{WIDE}"));
    environment.domains.extend(ODD.map(|(name, _)| below(name)));
    environment.domains.extend(TRICKS.map(below));
    environment.egress = rules();
    environment.address_exceptions = vec![AddressException {
        cidr: OPENED_RANGE.to_owned(),
        reason: "the servers of the red team".to_owned(),
    }];
    environment.credentials = binding().into_iter().collect();
    spec
}

fn rules() -> Vec<EgressRule> {
    let web = vec![EgressProtocol::Https, EgressProtocol::Http];
    let barred = EgressRule {
        name: Some("barred".to_owned()),
        ..EgressRule::hosts(RuleVerdict::Deny, &[BARRED])
    };
    let read = EgressRule {
        name: Some("read".to_owned()),
        protocols: web.clone(),
        methods: ["GET", "POST"].map(str::to_owned).to_vec(),
        paths: ["/open", "/echo"].map(str::to_owned).to_vec(),
        ..EgressRule::hosts(RuleVerdict::Allow, &[READ])
    };
    let keyed = EgressRule {
        name: Some("keyed".to_owned()),
        protocols: web,
        ..EgressRule::hosts(RuleVerdict::Allow, &[KEYED])
    };
    let bad = EgressRule {
        name: Some("bad".to_owned()),
        protocols: vec![EgressProtocol::Https],
        inspect: true,
        ..EgressRule::hosts(RuleVerdict::Allow, &BAD)
    };
    vec![barred, read, keyed, bad]
}

fn binding() -> Option<CredentialBinding> {
    Some(CredentialBinding {
        secret: "WORLD".parse().ok()?,
        kind: CredentialKind::Bearer,
        hosts: vec![KEYED.to_owned()],
        methods: ["GET", "POST"].map(str::to_owned).to_vec(),
        paths: vec![BOUND.to_owned()],
        env: Some(VARIABLE.to_owned()),
    })
}
