//! `cargo xtask test`: install what is needed, then run every check and every test.
//!
//! The last line of the output is `N passed, N failed`: tests and checks count alike.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::agents::Agents;
use crate::dockerd::{self, Dockerd};
use crate::failure::Reported;
use crate::process::{self, Captured};
use crate::redteam;
use crate::setup;
use crate::tally::{self, Tally};
use crate::tools::Deny;
use crate::workspace::{Workspace, cargo};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what is slow or needs the network: real agents and their tests, cargo-deny, documentation tests
    #[arg(long)]
    quick: bool,
    /// Print the steps and run none
    #[arg(long)]
    list: bool,
    /// Run only these steps (see --list)
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
}

/// What a step gets to know.
struct Context {
    workspace: Workspace,
    agents: Agents,
    deny: Deny,
    quick: bool,
}

impl Context {
    /// The binary that the step `build` makes.
    fn stockade(&self) -> PathBuf {
        self.workspace.target.join("debug/stockade")
    }
}

/// One line of the final table.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Left out by `--quick`.
    slow: bool,
    run: fn(&Context) -> Result<Tally>,
}

const fn step(name: &'static str, about: &'static str, run: fn(&Context) -> Result<Tally>) -> Step {
    Step {
        name,
        about,
        slow: false,
        run,
    }
}

const fn slow(name: &'static str, about: &'static str, run: fn(&Context) -> Result<Tally>) -> Step {
    Step {
        name,
        about,
        slow: true,
        run,
    }
}

const STEPS: &[Step] = &[
    step("fmt", "the code is formatted", |_| {
        check(cargo_with(&["fmt", "--all", "--check"]))
    }),
    step("prove", "the layer check objects to made-up mistakes", |_| {
        own(&["layers", "--prove"])
    }),
    step("layers", "the crates import each other downwards only", |_| {
        own(&["layers"])
    }),
    step(
        "tidy",
        "file sizes, markers, purity of the core, links between documents",
        |_| own(&["tidy"]),
    ),
    step("clippy", "no warning in any target", |_| {
        check(cargo_with(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    step(
        "no-aws-lc",
        "the build needs no cmake and no second TLS library",
        |_| no_aws_lc(),
    ),
    step("build", "the binaries that the tests start", |_| {
        check(cargo_with(&["build", "--workspace", "--bins", "--locked"]))
    }),
    step("tests", "every test of every crate", tests),
    step(
        "redteam",
        "every attack fails on every backend, and every control works",
        |context| redteam::run(&context.stockade()),
    ),
    slow("doctests", "every example in the documentation", doctests),
    slow("deny", "licences, bans and sources of the dependencies", |context| {
        check(context.deny.check(&["licenses", "bans", "sources"])?)
    }),
    slow(
        "advisories",
        "known vulnerabilities, when the list can be fetched",
        |context| {
            context.deny.check_advisories()?;
            Ok(Tally::one(true))
        },
    ),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let steps = choose(args)?;
    if args.list {
        for step in &steps {
            println!("{:<10}  {}", step.name, step.about);
        }
        return Ok(());
    }
    let workspace = Workspace::load()?;
    let agents = Agents::locate(&workspace.target)?;
    let deny = Deny::locate(&workspace.target)?;
    let context = Context {
        workspace,
        agents,
        deny,
        quick: args.quick,
    };
    let mut table = Vec::new();
    let start = Instant::now();
    let agents_wanted = !args.quick && steps.iter().any(|step| step.name == "tests");
    if agents_wanted {
        setup::packages(setup::AGENTS)?;
    }
    if steps.iter().any(|step| step.name == "tests" || step.name == "redteam") {
        setup::packages(&setup::sandbox())?;
    }
    if steps.iter().any(|step| step.name == "tests") {
        setup::packages(setup::CLIENTS)?;
    }
    setup::packages(setup::BASE)?;
    table.push(("setup", Ok(Tally::default()), start.elapsed()));
    run_steps(&steps, &context, &mut table);
    finish(&table)
}

fn choose(args: &Args) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| !STEPS.iter().any(|step| step.name == **name))
    {
        bail!("no step `{unknown}`: `cargo xtask test --list` prints them");
    }
    let wanted = |step: &&Step| args.only.is_empty() || args.only.iter().any(|name| name == step.name);
    Ok(STEPS
        .iter()
        .filter(|step| !(args.quick && step.slow))
        .filter(wanted)
        .collect())
}

type Line = (&'static str, Result<Tally>, Duration);

/// Installs the agents and cargo-deny beside the checks (they wait for the network, or run at low priority), and
/// waits for both before the tests, so that the tests have the machine to themselves.
fn run_steps(steps: &[&'static Step], context: &Context, table: &mut Vec<Line>) {
    let wants = |name: &str| steps.iter().any(|step| step.name == name);
    let timed = |work: fn(&Context) -> Result<()>| {
        let start = Instant::now();
        (work(context), start.elapsed())
    };
    thread::scope(|scope| {
        let agents = (wants("tests") && !context.quick).then(|| scope.spawn(move || timed(|c| c.agents.install())));
        let deny = (wants("deny") || wants("advisories")).then(|| scope.spawn(move || timed(|c| c.deny.install())));
        let mut background = [("agents", agents), ("cargo-deny", deny)];
        for step in steps {
            if step.name == "tests" || step.name == "deny" {
                for (name, handle) in &mut background {
                    let Some(handle) = handle.take() else { continue };
                    let (result, took) = handle
                        .join()
                        .unwrap_or_else(|_| (Err(anyhow::anyhow!("panicked")), Duration::ZERO));
                    report(name, result.as_ref().err());
                    table.push((name, result.map(|()| Tally::default()), took));
                }
            }
            println!("== {}: {}", step.name, step.about);
            let start = Instant::now();
            let result = (step.run)(context);
            report(step.name, result.as_ref().err());
            table.push((step.name, result, start.elapsed()));
        }
    });
}

fn report(name: &str, error: Option<&anyhow::Error>) {
    if let Some(error) = error {
        eprintln!("== {name} FAILED: {error:#}");
    }
}

/// Prints the table and the summary, which is the last line of the standard output.
fn finish(table: &[Line]) -> Result<()> {
    println!("\n{:<12}  {:>7}  {:>7}  {:>9}", "step", "passed", "failed", "seconds");
    let mut total = Tally::default();
    for (name, result, took) in table {
        // A step that could not run at all is one failure.
        let tally = result.as_ref().copied().unwrap_or(Tally::one(false));
        total.add(tally);
        println!(
            "{name:<12}  {:>7}  {:>7}  {:>9.1}",
            tally.passed,
            tally.failed,
            took.as_secs_f64()
        );
    }
    let failed: Vec<&str> = table
        .iter()
        .filter(|line| !passed(line))
        .map(|(name, ..)| *name)
        .collect();
    if !failed.is_empty() {
        println!("\nfailed: {}", failed.join(", "));
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Reported.into())
    }
}

fn passed((_, result, _): &Line) -> bool {
    result.as_ref().is_ok_and(|tally| tally.failed == 0)
}

fn cargo_with(args: &[&str]) -> Command {
    let mut command = cargo();
    command.args(args);
    command
}

fn check(mut command: Command) -> Result<Tally> {
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    process::run(&mut command)?;
    Ok(Tally::one(true))
}

/// A command of this very program, as its own process: one way to run it, here and by hand.
fn own(args: &[&str]) -> Result<Tally> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(args);
    check(command)
}

fn no_aws_lc() -> Result<Tally> {
    let mut tree = cargo_with(&["tree", "--workspace", "-e", "normal,build", "-i", "aws-lc-sys"]);
    let tree = process::capture(tree.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    absent(&tree).map(|()| Tally::one(true))
}

/// cargo fails when the lock file has no such package, and prints nothing when nothing that is built uses it.
fn absent(tree: &Captured) -> Result<()> {
    let unknown = !tree.success && tree.stderr.contains("did not match any packages");
    let unused = tree.success && tree.stdout.trim().is_empty();
    if unknown || unused {
        return Ok(());
    }
    bail!(
        "aws-lc-sys must not be in the build (it needs cmake):\n{}{}",
        tree.stdout,
        tree.stderr
    )
}

fn tests(context: &Context) -> Result<Tally> {
    let nextest = process::capture(&mut cargo_with(&["nextest", "--version"])).is_ok_and(|version| version.success);
    let mut command = if nextest {
        cargo_with(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
    } else {
        cargo_with(&[
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--locked",
            "--no-fail-fast",
        ])
    };
    // Stopped when the tests have ended, however they did.
    let docker = if setup::is_root() {
        Some(Dockerd::start()?)
    } else {
        None
    };
    if let Some(docker) = &docker {
        command.env(dockerd::VARIABLE, docker.socket());
    }
    command.env("STOCKADE_BIN", context.stockade());
    if context.quick {
        // The tests with real agents live in a module of this name.
        command.args(["--", "--skip", "agents::"]);
    } else {
        command.env("STOCKADE_AGENTS_DIR", &context.agents.dir);
    }
    let read = if nextest {
        |out: &Captured| tally::nextest(&out.stderr)
    } else {
        |out: &Captured| tally::libtest(&out.stdout)
    };
    count(command, read)
}

fn doctests(_: &Context) -> Result<Tally> {
    count(
        cargo_with(&["test", "--doc", "--workspace", "--locked", "--no-fail-fast"]),
        |out| tally::libtest(&out.stdout),
    )
}

/// Runs a test runner and believes its counts only together with its exit code.
fn count(mut command: Command, read: fn(&Captured) -> Option<Tally>) -> Result<Tally> {
    // The counts are read from the text, so it must be plain.
    command.env("CARGO_TERM_COLOR", "never");
    let output = process::tee(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    let tally = read(&output).with_context(|| format!("`{}` did not come to its end", process::show(&command)))?;
    if tally == Tally::default() && output.success {
        bail!("`{}` ran no test", process::show(&command));
    }
    match (output.success, tally.failed) {
        (true, 0) | (false, 1..) => Ok(tally),
        // Counts and exit code disagree, for example because one crate's tests did not compile: not a success.
        _ => Ok(Tally {
            failed: tally.failed + 1,
            ..tally
        }),
    }
}
