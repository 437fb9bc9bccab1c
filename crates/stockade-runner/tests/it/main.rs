//! The runner's activities on a simulated store, a sandbox of plain processes, a model
//! that says what it is told to, and agents made of a few lines of shell.
#![allow(clippy::large_futures, missing_docs)]

mod builtin;
mod export;
mod files;
mod harness;
mod life;
mod profiles;
mod support;
mod trust;
