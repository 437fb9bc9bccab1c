//! Everything the native sandbox promises, as root and as an ordinary user.
//!
//! Each case runs in a process of its own (this binary again), because the user differs
//! and because what is left behind is judged after that process has ended. As root both
//! modes run; as an ordinary user only `rootless` has something to test.
// A test that starts itself again as another user tells its child through the environment.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr, unused_crate_dependencies)]

mod bed;
mod commands;
mod files;
mod inputs;
mod isolation;
mod leftovers;
mod limits;
mod network;
mod privileges;
