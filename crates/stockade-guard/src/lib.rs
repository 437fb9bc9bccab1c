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
//! | `tls` | TLS that is opened: the run's authority, strict verification outwards |
//! | `http` | HTTP, request by request; WebSocket; internal names |
//! | `inspection`, `judge` | what has to be opened, and what the rules say to a request |
//! | `broker`, `lend` | where credentials are put into requests |
//! | [`git`] | git's smart HTTP protocol: what is fetched and pushed |
//! | `passage` | asking the gate for a client that may go away |
//! | `door` | from an action to an admitted, dialled connection |
//! | `lookup` | names to addresses, each one judged |
//! | `refusals` | counting what is refused |
//!
//! What it cannot see: inside TLS that no rule needs opened. There the server name of the
//! handshake is what is checked (the outer one, where Encrypted ClientHello hides another), and
//! the address that is dialled comes from the Guard's own look-up of that name. Where a rule
//! needs requests to be read, the Guard is the server to the client, by a certificate of the
//! run's own authority, and the client to the server, whose certificate it verifies first; a
//! client that hides its server name or does not believe the authority is refused. On a port
//! that an environment names itself (`host:22`) it sees bytes; there, too, TLS and HTTP are
//! judged by their names when a connection begins with them. What a WebSocket carries is bytes.
//!
//! What it does not do: UDP other than DNS (the boundary drops it), HTTP/2 without TLS,
//! upgrades other than to WebSocket, and revocation lists of certificates.

mod ask;
mod broker;
mod config;
mod connection;
pub mod credentials;
mod dial;
mod dns;
mod door;
pub mod git;
mod guard;
mod http;
mod inspection;
mod judge;
mod lend;
mod lookup;
mod meter;
mod origin;
mod passage;
mod pins;
mod refusals;
mod session;
mod sniff;
mod tls;

pub use broker::{Broker, Leaving, Withheld};
pub use config::GuardConfig;
pub use dial::{Dial, SystemDial};
pub use guard::{Guard, GuardError};
pub use inspection::{ByPolicy, Inspector, RequestLine};
pub use origin::{KernelOrigin, Origin};
