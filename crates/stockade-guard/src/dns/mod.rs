//! The name server of a sandbox: synthetic answers, from rules alone.
//!
//! A name the policy allows, or would ask a person about, gets an address that leads to the
//! Guard; nothing is looked up and nothing is recorded, because nothing left the sandbox: the
//! connection is the action. A name the policy refuses does not exist (NXDOMAIN) and the
//! refusal is recorded as a `resolve` action. Record types other than A exist and are empty.

mod answer;
mod serve;
mod tunnel;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use answer::answer;
pub(crate) use serve::{serve_datagrams, serve_stream};
pub use tunnel::TunnelLimits;
pub(crate) use tunnel::Tunnels;

/// The port of the Domain Name System.
pub(crate) const PORT: u16 = 53;
