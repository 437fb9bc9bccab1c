//! Environments: what a sandbox may reach and how much it may use.

use serde::{Deserialize, Serialize};

use crate::{CredentialBinding, EgressRule, FileRules, RefRules, TrafficLimits, credential};

/// How far a sandbox may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkLevel {
    /// Nothing but the model gateway.
    None,
    /// A curated list of package registries and source hosts.
    #[default]
    Trusted,
    /// The environment's own list of domains; empty means nothing.
    Custom,
    /// Every public host; needs an acknowledgement.
    Full,
}

/// A private or special address range that a sandbox may reach nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressException {
    /// The range in CIDR notation (RFC 4632, RFC 4291).
    pub cidr: String,
    /// Why; stands in the receipt.
    pub reason: String,
}

impl std::fmt::Display for AddressException {
    /// As settled connections name it: `CIDR: reason`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.cidr.trim(), self.reason)
    }
}

/// Limits of one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxLimits {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU in thousandths of a core: 1000 is one core.
    pub cpu_millis: u64,
    /// Writable space in bytes over all of the sandbox's file systems.
    pub disk_bytes: u64,
    /// Bytes a second read from and written to block devices, each; no limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_bytes_per_second: Option<u64>,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 4 << 30,
            pids: 1024,
            cpu_millis: 2000,
            disk_bytes: 2 << 30,
            io_bytes_per_second: None,
        }
    }
}

/// What a sandbox may reach and how much it may use (the field calls it SandboxEnvironment).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// How far it reaches.
    #[serde(default)]
    pub network: NetworkLevel,
    /// Host names, exact or with one leading `*.`; added to the list of the level.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Rules about destinations and requests, asked before the level: first those that deny, in
    /// order, then the others, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// Limits on all that one run sends and receives.
    #[serde(default, skip_serializing_if = "TrafficLimits::is_unlimited")]
    pub traffic: TrafficLimits,
    /// Must be true for [`NetworkLevel::Full`]: the operator accepts exfiltration.
    #[serde(default)]
    pub acknowledge_full_network: bool,
    /// Private ranges that may be reached, each with its reason.
    #[serde(default)]
    pub address_exceptions: Vec<AddressException>,
    /// What the root file system is made of.
    #[serde(default = "host_image")]
    pub image: String,
    /// Limits of the sandbox.
    #[serde(default)]
    pub limits: SandboxLimits,
    /// What its tools may write and what may be exported.
    #[serde(default)]
    pub files: FileRules,
    /// What may be fetched and pushed through git.
    #[serde(default)]
    pub git: RefRules,
    /// Secrets that the Guard puts into requests.
    #[serde(
        default,
        deserialize_with = "credential::read_all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub credentials: Vec<CredentialBinding>,
}

fn host_image() -> String {
    "host".to_owned()
}

impl Environment {
    /// The environment of that name and level with all defaults.
    pub fn named(name: &str, network: NetworkLevel) -> Self {
        Self {
            name: name.to_owned(),
            network,
            domains: Vec::new(),
            egress: Vec::new(),
            traffic: TrafficLimits::default(),
            acknowledge_full_network: false,
            address_exceptions: Vec::new(),
            image: host_image(),
            limits: SandboxLimits::default(),
            files: FileRules::default(),
            git: RefRules::default(),
            credentials: Vec::new(),
        }
    }
}
