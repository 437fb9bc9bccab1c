//! Engine adapters: what carries runs through their life.
//!
//! [`EmbeddedEngine`] is one process. It decides nothing: it claims a run, does what the
//! machine of the domain commands through [`stockade_ports::Activities`], feeds back how
//! that went, and lets the store write it down.

#![forbid(unsafe_code)]

mod activity;
mod carry;
mod config;
mod engine;
mod hands;
mod lock;
mod patience;
mod recovery;
mod seal;

pub use config::EngineConfig;
pub use engine::EmbeddedEngine;
pub use recovery::release_abandoned;
