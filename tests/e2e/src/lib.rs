//! Black-box tests of Stockade: through the `stockade` binary and its HTTP interface, and
//! through nothing else. This library is empty; everything is in `tests/`.
//!
//! `cargo xtask test` builds the binary, installs the agents and runs them. By hand:
//!
//! ```console
//! $ cargo build -p stockade
//! $ STOCKADE_AGENTS_DIR=DIR cargo test -p stockade-e2e
//! ```
//!
//! Each test has its own state directory, configuration, servers on free ports of the
//! loopback, and an environment with nothing of the caller's in it.
