//! Developer commands of Stockade. `cargo xtask --help` lists them; `README.md` beside this crate explains them.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command line program prints and reads its environment"
)]

mod agents;
mod bench;
mod dockerd;
mod failure;
mod fuzz;
mod layers;
mod links;
mod process;
mod redteam;
mod setup;
mod tally;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Stockade")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check that the crates import each other downwards only, and that ARCHITECTURE.md tells the truth
    Layers(layers::Args),
    /// Check the small rules: file sizes, forbidden markers, purity of the core, links between documents
    Tidy,
    /// Install what the tests need
    Setup(setup::Args),
    /// Install what the tests need, then run every check and every test
    Test(test::Args),
    /// Run a command beside a Docker daemon of its own, as the tests of the backend docker need it
    Docker(dockerd::Args),
    /// Measure, and compare in the same run
    Bench(bench::Args),
    /// Fuzz the readers of hostile bytes, each target for a while
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Layers(args) => layers::run(&args),
        Command::Tidy => tidy::run(),
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Docker(args) => dockerd::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<failure::Reported>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
