//! Real git clients, through the git part of the Guard, to a real git server.
//!
//! The proxy in `proxy` stands for the Guard's HTTP: it recognises git's requests, hands them to
//! the Guard's git part, and puts the credential in on the way to the server. The client knows
//! only the proxy. What the gate says is said by the same policy, in `world`.

#![allow(clippy::disallowed_methods, reason = "tests read the search path for git")]

mod fetch;
mod hostile;
mod inspect;
mod proxy;
mod push;
mod world;
