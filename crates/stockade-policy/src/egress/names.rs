//! Names that are never let out, or only by their very name.

use crate::host::HostName;

/// Names the Guard itself answers for, on port 80.
pub const INTERNAL_HOSTS: [&str; 2] = ["llm.stockade.internal", "tools.stockade.internal"];
/// The port of the internal names.
pub const INTERNAL_PORT: u16 = 80;
/// The name at which the Guard speaks to clients that insist on a proxy.
pub const PROXY_HOST: &str = "proxy.stockade.internal";
/// The port of that proxy.
pub const PROXY_PORT: u16 = 3128;

/// Names that mean this machine or its cloud whatever an environment says. Metadata services:
/// Google, AWS, Azure, Tencent, Equinix Metal, IBM.
const NEVER: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
    "instance-data",
    "metadata",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "api.metadata.cloud.ibm.com",
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

/// Whether a name means this machine, Stockade or a metadata service under every policy.
pub(crate) fn is_never(name: &HostName) -> bool {
    NEVER.contains(&name.as_str()) || NEVER_BELOW.iter().any(|suffix| name.is_below(suffix))
}

pub(crate) fn is_private_name(name: &HostName) -> bool {
    PRIVATE_BELOW
        .iter()
        .any(|suffix| name.as_str() == *suffix || name.is_below(suffix))
}

/// Whether no environment without an entry for the very host lets this name out.
pub fn is_infrastructure(name: &HostName) -> bool {
    is_never(name) || is_private_name(name)
}
