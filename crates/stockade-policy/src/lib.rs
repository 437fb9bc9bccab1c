//! Policy, pure: what the rules of a run say to an action, and which rule said it.
//!
//! A [`Policy`] is compiled once from what a run is frozen with (its agent's rules and its
//! environment) and evaluated for every action. First the agent's own rules, the first
//! that matches decides; then what the kind of action does by default. An agent's rule can
//! narrow what the environment allows and never widen it.
//!
//! For files, written by tools or exported, see [`files`]; for pushes and fetches see [`git`].
//!
//! For egress the parts are [`host`] (one parser for hosts), [`target`] (one parser for what
//! requests are for), [`address`] (what kind of place an address is), [`egress`] (rules, levels,
//! domains, ports), [`trusted`] (the curated list) and [`fault`] (what the Guard saw that
//! nothing may allow). [`import`] reads the lists of others. The action describes what was
//! seen, and [`Policy::evaluate`] is the only place that judges it; [`Policy::explain`] says how
//! it came to its answer. An egress action looks a name up (`resolve`), opens a connection
//! (`connect`) or makes a request over one that the Guard reads (`request`):
//!
//! | `args` of an egress action | Meaning |
//! |---|---|
//! | `host`, `port`, `protocol` | where to and what is spoken; all an allowed connection has |
//! | `inspected` | true for a connection whose requests the Guard will ask about one by one |
//! | `method`, `path`, `bytes` | of a request: its method, its path with the query, the size it states |
//! | `sni`, `authority` | a TLS server name or HTTP host, where it is not simply `host` |
//! | `address` | an address the name led to, where it was refused |
//! | `alias` | a CNAME the name led through, where it was refused |
//! | `fault` | a [`Fault`] code |
//! | `attempts` | how often this was refused, where repeats are counted instead of recorded |

#![forbid(unsafe_code)]

pub mod address;
mod credentials;
pub mod egress;
mod explain;
pub mod fault;
pub mod files;
pub mod git;
pub mod host;
mod hosts;
pub mod import;
pub mod pattern;
pub mod policy;
mod revoked;
mod rules;
pub mod target;
pub mod trusted;

pub use address::{AddressClass, AddressVerdict, SYNTHETIC_RANGE};
pub use egress::{Bounds, EgressRules, HostPattern, INTERNAL_HOSTS, Protocol};
pub use explain::{ExplainError, Place};
pub use fault::Fault;
pub use files::FilePolicy;
pub use host::{Host, HostError, HostName, host_and_port};
pub use hosts::hosts_of;
pub use policy::{Policy, PolicyError};
pub use revoked::Revoked;
pub use target::{RequestPath, RequestTarget, Scheme, TargetError};
pub use trusted::TRUSTED_VERSION;

#[cfg(test)]
mod egress_tests;
