//! The Guard: the egress boundary outside the sandbox.
//!
//! It accepts on sockets that live in a sandbox's network namespace, learns where each
//! connection wanted to go, finds out whom it names, asks the gate, looks the name up,
//! judges the addresses, dials one of those it judged and carries bytes. Everything it
//! refuses it refuses because the policy says so, and the gate writes it down.
//!
//! | Module | Part |
//! |---|---|
//! | `guard` | takes boundaries, accepts, closes |
//! | `connection` | one TCP connection: place, first bytes, splice |
//! | `dns` | synthetic answers over UDP and TCP |
//! | `http` | plain HTTP, request by request; internal names |
//! | [`git`] | git's smart HTTP protocol: what is fetched and pushed |
//! | `door` | from an action to an admitted, dialled connection |
//! | `lookup` | names to addresses, each one judged |
//! | `refusals` | counting what is refused |
//!
//! What it cannot see: inside TLS. There the server name of the handshake is what is
//! checked (the outer one, where Encrypted ClientHello hides another), and the address that
//! is dialled comes from the Guard's own look-up of that name. On a port that an environment
//! names itself (`host:22`) it sees bytes; there, too, TLS and HTTP are judged by their names
//! when a connection begins with them.
//!
//! What it does not do: UDP other than DNS (the boundary drops it), HTTP/2 without TLS, and
//! upgrades of plain HTTP, which are not offered on.

mod ask;
mod config;
mod connection;
mod dial;
mod dns;
mod door;
pub mod git;
mod guard;
mod http;
mod lookup;
mod meter;
mod origin;
mod pins;
mod refusals;
mod session;
mod sniff;

pub use config::GuardConfig;
pub use dial::{Dial, SystemDial};
pub use guard::{Guard, GuardError};
pub use origin::{KernelOrigin, Origin};
