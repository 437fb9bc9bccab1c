//! The native sandbox, beside bubblewrap, the OCI runtimes and Docker in the same run.

mod load;
mod peers;

use std::{ffi::OsStr, path::PathBuf};

use anyhow::Result;

use super::Context;
use super::helper::{self, Helper, Measured};
use super::report::Report;
use crate::{process, setup};

const fn example(name: &'static str) -> Helper {
    Helper {
        package: "stockade-sandbox",
        kind: "example",
        name,
    }
}

const LAUNCHER: Helper = Helper {
    package: "stockade-sandbox",
    kind: "bin",
    name: "stockade-sandbox-launcher",
};

const OURS: &str = "native: created, proved, /bin/true ended";
const BWRAP: &str = "bwrap --unshare-all /bin/true";
/// Samples per turn: short turns, so that both see the same weather on the machine.
const TURN: usize = 10;
/// Least samples of what takes milliseconds, and most of what takes a large part of a second.
const QUICK: usize = 100;
const SLOW: usize = 20;

/// The programs that measure.
struct Programs {
    launcher: PathBuf,
    cold: PathBuf,
    load: PathBuf,
    work: PathBuf,
    backends: PathBuf,
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    setup::packages(setup::BENCH)?;
    let workspace = &context.workspace;
    let programs = Programs {
        launcher: LAUNCHER.build(workspace)?,
        cold: example("cold_start").build(workspace)?,
        load: example("load").build(workspace)?,
        work: example("work").build(workspace)?,
        backends: example("backends").build(workspace)?,
    };
    let mut report = Report::default();
    let single = cold(context, &programs, &mut report)?;
    peers::run(&mut report, |args, count| backend(&programs, args, count))?;
    for (peer, _) in peers::NAMES {
        if report.rows.iter().any(|row| row.what == *peer) {
            report.ratio_note(OURS, peer)?;
        }
    }
    load::run(&programs, single, &mut report)?;
    Ok(report)
}

/// Cold starts and bubblewrap's in turns. The median of ours.
fn cold(context: &Context, programs: &Programs, report: &mut Report) -> Result<f64> {
    let turn = TURN.to_string();
    let args = [OsStr::new("--json"), programs.launcher.as_os_str(), OsStr::new(&turn)];
    // The first turn of each pays for cold caches and is thrown away.
    helper::measure(programs.cold.as_os_str(), &args)?;
    peers::bwrap()?;
    let mut ours: Vec<Measured> = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..context.rounds.max(QUICK).div_ceil(TURN) {
        ours.push(helper::measure(programs.cold.as_os_str(), &args)?);
        for _ in 0..TURN {
            theirs.push(peers::bwrap()?);
        }
    }
    if let Some(last) = ours.last() {
        report.notes.extend(last.notes.iter().cloned());
    }
    for (what, name) in [
        ("native: created, Guest answers", "create"),
        ("native: proved from inside", "prove"),
        (OURS, "create_and_true"),
        ("native: destroyed", "destroy"),
        ("floor: clone into the same namespaces, four mounts, exec", "floor"),
    ] {
        let mut samples = Vec::new();
        for measured in &ours {
            samples.extend_from_slice(measured.get(name)?);
        }
        report.row(what, &samples)?;
    }
    report.row(BWRAP, &theirs)?;
    report.compare(OURS, BWRAP)?;
    report.median(OURS)
}

/// Sandboxes of a backend, given as its name and perhaps its daemon's socket.
fn backend(programs: &Programs, args: &[&str], count: usize) -> Result<Vec<f64>> {
    let count = count.to_string();
    let mut all = vec![OsStr::new(args[0]), OsStr::new(&count)];
    all.extend(args[1..].iter().map(OsStr::new));
    let measured = helper::measure(programs.backends.as_os_str(), &all)?;
    Ok(measured.get("create_and_true")?.to_vec())
}

/// Runs one of our measuring programs.
fn measure(program: &std::path::Path, args: &[&str], launcher: &std::path::Path, last: &str) -> Result<Measured> {
    let mut all: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    all.extend([launcher.as_os_str(), OsStr::new(last)]);
    helper::measure(program.as_os_str(), &all)
}

/// Whether a peer's program is here; without it its row is missing and a note says so.
fn has(program: &str) -> bool {
    process::in_path(program)
}
