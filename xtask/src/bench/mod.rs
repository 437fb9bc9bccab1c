//! `cargo xtask bench`: figures with what they are compared with, from the same run.

mod egress;
mod gate;
mod gateway;
mod helper;
mod http;
mod policy;
mod report;
mod sandbox;
mod soak;
mod stats;
mod task;

use anyhow::{Result, bail};

use report::Report;

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which benches (see --list); all of them when none is named
    names: Vec<String>,
    /// Print the benches and run none
    #[arg(long)]
    list: bool,
    /// How many samples of a slow thing; quick things take more
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Put the figures into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

/// What a bench gets to know.
struct Context {
    workspace: Workspace,
    rounds: usize,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Result<Report>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "sandbox",
        about: "cold start, claims, bursts, memory and work in sandboxes, beside bwrap, runc, runsc, Docker",
        run: sandbox::run,
    },
    Bench {
        name: "soak",
        about: "ten thousand sandboxes with their supervisor killed now and then: failures and leftovers",
        run: soak::run,
    },
    Bench {
        name: "gate",
        about: "admit and settle on a real store: latency and rate",
        run: gate::run,
    },
    Bench {
        name: "policy",
        about: "a verdict with ten thousand egress rules, beside one with ten",
        run: policy::run,
    },
    Bench {
        name: "egress",
        about: "connections, requests and bytes through the Guard, beside none, squid and tinyproxy",
        run: egress::run,
    },
    Bench {
        name: "gateway",
        about: "a model call through the gateway, beside a direct one",
        run: gateway::run,
    },
    Bench {
        name: "task-to-ready",
        about: "from POST /v1/tasks to the event agent.ready",
        run: task::run,
    },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        for bench in BENCHES {
            println!("{:<14}  {}", bench.name, bench.about);
        }
        return Ok(());
    }
    let benches = choose(&args.names)?;
    let rounds = usize::try_from(args.rounds)?;
    let context = Context {
        workspace: Workspace::load()?,
        rounds,
    };
    let mut failed = Vec::new();
    for bench in benches {
        println!("\n## {}: {}\n", bench.name, bench.about);
        let done = (bench.run)(&context).and_then(|report| {
            print!("{}", report.table());
            if args.write {
                report::write(&context.workspace.root, bench.name, &report)
            } else {
                Ok(())
            }
        });
        if let Err(error) = done {
            eprintln!("bench {}: {error:#}", bench.name);
            failed.push(bench.name);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static Bench>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !BENCHES.iter().any(|bench| bench.name == **name))
    {
        bail!("no bench `{unknown}`: `cargo xtask bench --list` prints them");
    }
    Ok(BENCHES
        .iter()
        .filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
        .collect())
}
