//! `stockade`: the command line, and the wiring of everything behind it.
//!
//! `main` is a doorway. [`cli`] says what can be asked, [`settings`] what the program works
//! with, [`commands`] does it, [`wiring`] introduces adapters to roles, [`exit`] ends it.
#![allow(
    clippy::disallowed_methods,
    reason = "the program reads its environment, so that no library has to"
)]

mod backends;
mod cli;
mod commands;
mod exit;
mod git_access;
mod git_hosts;
mod keys;
mod production;
mod server;
mod settings;
mod terminal;
mod wiring;
mod yaml;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    // The launcher must stay single-threaded, so it branches off before any runtime starts.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "__sandbox-launch")
    {
        return ExitCode::from(u8::try_from(stockade_sandbox::launcher_main()).unwrap_or(u8::MAX));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    terminal::start_logging();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return terminal::complain(&anyhow::Error::from(error).context("cannot start")),
    };
    let outcome = runtime.block_on(commands::execute(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => terminal::complain(&error),
    }
}
