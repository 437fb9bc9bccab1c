//! The runner: provisions a sandbox, drives an agent in it, exports what it did.
//!
//! [`Runner`] is what the engine's [`Activities`](stockade_ports::Activities) mean:
//!
//! 1. `provision`: the repository is copied on the host, stripped of where it came from
//!    ([`check_repo`]); sandbox and boundary are made around it.
//! 2. `drive`: the built-in loop, whose model calls stay in this process while its tools run
//!    inside; or a harness inside that speaks the Agent Client Protocol.
//! 3. `export`: a patch comes out, untrusted, and becomes a commit on a pristine copy.
//!    Where that is asked for, it is pushed and a pull request is opened, by the host, once the sandbox is gone.
//! 4. `cleanup` and `seal`: the sandbox ends with its run, and the receipt is signed.
//!
//! Nothing here decides anything: every tool, question and export asks the gate.

#![forbid(unsafe_code)]

mod backend;
mod builtin;
mod canary;
mod changes;
mod config;
mod export;
mod git;
mod harness;
mod hosts;
mod inbox;
mod keep;
mod limits;
mod live;
mod mishap;
mod narrator;
mod profiles;
mod progress;
mod provision;
mod publish;
mod pull_request;
mod pulse;
mod push;
mod repo;
mod runner;
mod seal;
mod text;
mod trust;

pub use backend::{check_backend, snapshots_dir};
pub use config::{LLM_URL, RunnerConfig, RunnerParts};
pub use export::{BUNDLE, PATCH};
pub use harness::{Missing, installed};
pub use profiles::profiles;
pub use pull_request::open_pull_request;
pub use push::PushInspection;
pub use repo::check_repo;
pub use runner::Runner;
pub use seal::RECEIPT;
