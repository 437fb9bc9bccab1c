//! Addresses: which kind of place an address is, and the exceptions of an environment.
//!
//! Sources: the IANA special-purpose registries (RFC 6890 and its updates), RFC 6598
//! (shared address space), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo),
//! RFC 5214 (ISATAP),
//! RFC 4291 (mapped and compatible addresses), and the metadata services of the clouds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use stockade_domain::AddressException;

/// The range of addresses the Guard invents for names; nothing real may be reached there.
pub const SYNTHETIC_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// A host of the public Internet.
    Public,
    /// A private network (RFC 1918) or a unique local address (RFC 4193).
    Private,
    /// This machine.
    Loopback,
    /// The local link.
    LinkLocal,
    /// Shared space behind carrier-grade NAT.
    CarrierNat,
    /// Many receivers.
    Multicast,
    /// A cloud's metadata service.
    Metadata,
    /// No address at all.
    Unspecified,
    /// Everybody on the link.
    Broadcast,
    /// Written in examples.
    Documentation,
    /// For benchmarks; the Guard's own synthetic range.
    Synthetic,
    /// Set aside for protocols or the future.
    Reserved,
    /// An IPv6 address that carries an IPv4 one through a translator or tunnel.
    Translated,
}

impl AddressClass {
    /// The class as events and rules spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::CarrierNat => "carrier_nat",
            Self::Multicast => "multicast",
            Self::Metadata => "metadata",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Synthetic => "synthetic",
            Self::Reserved => "reserved",
            Self::Translated => "translated",
        }
    }

    /// Whether no exception can open it: it names no single other host.
    const fn is_never_reachable(self) -> bool {
        matches!(
            self,
            Self::Unspecified | Self::Multicast | Self::Broadcast | Self::Synthetic
        )
    }
}

/// Metadata services that are not in 169.254.0.0/16: Alibaba, Oracle's older one, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Other well-known link-local services: AWS DNS, time, container and pod credentials, Tencent, Scaleway.
const METADATA_V4_LINK: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(169, 254, 169, 123),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(169, 254, 0, 23),
    Ipv4Addr::new(169, 254, 42, 42),
];

const METADATA_V6: [Ipv6Addr; 9] = [
    // AWS instance metadata, pod identity, DNS and time; Google; Oracle; Scaleway; Linode; OpenStack.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

const V4: &[(Ipv4Net, AddressClass)] = &[
    (v4(0, 0, 0, 0, 32), AddressClass::Unspecified),
    (v4(0, 0, 0, 0, 8), AddressClass::Reserved),
    (v4(10, 0, 0, 0, 8), AddressClass::Private),
    (v4(100, 64, 0, 0, 10), AddressClass::CarrierNat),
    (v4(127, 0, 0, 0, 8), AddressClass::Loopback),
    (v4(169, 254, 0, 0, 16), AddressClass::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressClass::Private),
    (v4(192, 0, 0, 0, 24), AddressClass::Reserved),
    (v4(192, 0, 2, 0, 24), AddressClass::Documentation),
    (v4(192, 88, 99, 0, 24), AddressClass::Reserved),
    (v4(192, 168, 0, 0, 16), AddressClass::Private),
    (SYNTHETIC_RANGE, AddressClass::Synthetic),
    (v4(198, 51, 100, 0, 24), AddressClass::Documentation),
    (v4(203, 0, 113, 0, 24), AddressClass::Documentation),
    (v4(224, 0, 0, 0, 4), AddressClass::Multicast),
    (v4(255, 255, 255, 255, 32), AddressClass::Broadcast),
    (v4(240, 0, 0, 0, 4), AddressClass::Reserved),
];

const V6: &[(Ipv6Net, AddressClass)] = &[
    (v6([0, 0, 0, 0], 128), AddressClass::Unspecified),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), AddressClass::Loopback),
    (v6([0x64, 0xff9b, 0, 0], 96), AddressClass::Translated),
    (v6([0x64, 0xff9b, 1, 0], 48), AddressClass::Translated),
    (v6([0x2001, 0, 0, 0], 32), AddressClass::Translated),
    (v6([0x2001, 0xdb8, 0, 0], 32), AddressClass::Documentation),
    (v6([0x2001, 0, 0, 0], 23), AddressClass::Reserved),
    (v6([0x2002, 0, 0, 0], 16), AddressClass::Translated),
    (v6([0x3fff, 0, 0, 0], 20), AddressClass::Documentation),
    (v6([0xfc00, 0, 0, 0], 7), AddressClass::Private),
    (v6([0xfe80, 0, 0, 0], 10), AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0], 10), AddressClass::Private),
    (v6([0xff00, 0, 0, 0], 8), AddressClass::Multicast),
];

/// The only part of IPv6 that is routed on the Internet.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, 0), prefix)
}

/// What kind of place an address is. Mapped and compatible IPv6 addresses are judged by the
/// IPv4 address in them.
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) || METADATA_V4_LINK.contains(&address) {
        return AddressClass::Metadata;
    }
    V4.iter()
        .find(|(range, _)| range.contains(&address))
        .map_or(AddressClass::Public, |(_, class)| *class)
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    if let Some(inner) = address.to_ipv4_mapped() {
        return classify_v4(inner);
    }
    if let Some((_, class)) = V6.iter().find(|(range, _)| range.contains(&address)) {
        return *class;
    }
    if let Some(inner) = compatible(address) {
        // Long deprecated (RFC 4291 2.5.5.1): no public host is reached so.
        return match classify_v4(inner) {
            AddressClass::Public => AddressClass::Reserved,
            class => class,
        };
    }
    if is_isatap(address) {
        return AddressClass::Translated;
    }
    if GLOBAL_UNICAST.contains(&address) {
        AddressClass::Public
    } else {
        AddressClass::Reserved
    }
}

/// Whether an interface identifier of ISATAP carries an IPv4 address (RFC 5214 6.1).
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [_, _, _, _, 0 | 0x0200, 0x5efe, ..])
}

fn compatible(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    u32::try_from(bits).ok().map(Ipv4Addr::from)
}

/// The IPv4 address that a NAT64, 6to4 or ISATAP address leads to.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(pair(high, low)),
        [0x2002, high, low, ..] => Some(pair(high, low)),
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => Some(pair(high, low)),
        _ => None,
    }
}

/// What the environment says to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may be dialled.
    Reachable {
        /// Its class.
        class: AddressClass,
        /// The exception that opened it, where it is not public, as [`AddressException`] shows it.
        exception: Option<String>,
    },
    /// It is not dialled, whatever name led to it.
    Refused {
        /// Its class.
        class: AddressClass,
    },
}

impl AddressVerdict {
    /// Whether it may be dialled.
    pub fn is_reachable(&self) -> bool {
        matches!(self, Self::Reachable { .. })
    }
}

/// The exceptions of an environment, compiled.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    exceptions: Vec<(IpNet, String)>,
}

impl AddressRules {
    /// Compiles exceptions.
    ///
    /// # Errors
    ///
    /// A sentence naming the exception that is wrong.
    pub fn compile(exceptions: &[AddressException]) -> Result<Self, String> {
        let exceptions = exceptions.iter().map(exception).collect::<Result<_, _>>()?;
        Ok(Self { exceptions })
    }

    /// What the rules say to an address.
    pub fn judge(&self, address: IpAddr) -> AddressVerdict {
        let address = address.to_canonical();
        let class = classify(address);
        if class == AddressClass::Public {
            return AddressVerdict::Reachable { class, exception: None };
        }
        match self.exception(address, class) {
            Some(reason) => AddressVerdict::Reachable {
                class,
                exception: Some(reason.to_owned()),
            },
            None => AddressVerdict::Refused { class },
        }
    }

    fn exception(&self, address: IpAddr, class: AddressClass) -> Option<&str> {
        if class.is_never_reachable() {
            return None;
        }
        let (range, reason) = self.exceptions.iter().find(|(range, _)| {
            // A metadata service hands out credentials: only an exception for exactly it counts.
            range.contains(&address)
                && (class != AddressClass::Metadata || range.prefix_len() == range.max_prefix_len())
        })?;
        // A translator's range being open says nothing about what lies behind it.
        let behind = match address {
            IpAddr::V6(v6) if class == AddressClass::Translated && range.prefix_len() < 128 => translated(v6)
                .map(IpAddr::from)
                .is_none_or(|inner| self.judge(inner).is_reachable()),
            _ => true,
        };
        behind.then_some(reason)
    }
}

fn exception(entry: &AddressException) -> Result<(IpNet, String), String> {
    let cidr = entry.cidr.trim();
    let wrong = |what: String| Err(format!("address exception '{cidr}': {what}"));
    let Ok(range) = cidr
        .parse::<IpNet>()
        .or_else(|_| cidr.parse::<IpAddr>().map(IpNet::from))
    else {
        return wrong("not an address range; write it like 10.20.0.0/16 or fd00:1::/64".to_owned());
    };
    if range.addr() != range.network() {
        return wrong(format!(
            "bits behind the prefix are set; did you mean {}?",
            range.trunc()
        ));
    }
    let least = if range.addr().is_ipv4() { 8 } else { 16 };
    if range.prefix_len() < least {
        return wrong(format!("too wide; name a prefix of /{least} or longer"));
    }
    if entry.reason.trim().is_empty() {
        return wrong("it needs a reason; it stands in every receipt".to_owned());
    }
    Ok((range, entry.to_string()))
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
