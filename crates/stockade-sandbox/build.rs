//! Builds the Guest, which this crate carries as a static binary.
#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

#[path = "../../build/static_binary.rs"]
mod static_binary;

fn main() {
    static_binary::build("stockade-guest", &["stockade-guest-proto"], "guest.bin");
}
