//! The image store against a real registry (Debian's docker-registry) on loopback.
#![allow(unused_crate_dependencies)]

mod attacks;
mod collect;
mod craft;
mod debian;
mod faults;
mod pull;
mod server;
mod token;
