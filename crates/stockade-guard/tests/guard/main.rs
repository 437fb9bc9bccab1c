//! The Guard, served over ordinary loopback sockets: a boundary without a sandbox.
//!
//! The rig stands in for the kernel (where a connection wanted to go) and for the Internet
//! (a name server, and what is dialled), so public addresses are used as they are.

mod approvals;
mod connections;
mod dns;
mod http;
mod inspected;
mod internal;
mod judges;
mod lifecycle;
mod proxy;
mod rig;
mod tls;
mod traffic;
mod trial;
mod world;
