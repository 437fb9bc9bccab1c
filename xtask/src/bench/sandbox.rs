//! Cold start of the native sandbox, beside bubblewrap in the same run.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::Context;
use super::helper::{self, Helper};
use super::report::Report;
use crate::{process, setup};

const HELPER: Helper = Helper {
    package: "stockade-sandbox",
    kind: "example",
    name: "cold_start",
};
const LAUNCHER: Helper = Helper {
    package: "stockade-sandbox",
    kind: "bin",
    name: "stockade-sandbox-launcher",
};

/// As much of the same as bubblewrap does by itself.
const BWRAP: &[&str] = &[
    "--unshare-all",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "/bin/true",
];

/// Samples per turn: short turns, so that both see the same weather on the machine.
const TURN: usize = 10;

pub(crate) fn run(context: &Context) -> Result<Report> {
    setup::packages(setup::BENCH)?;
    let program = HELPER.build(&context.workspace)?;
    let launcher = LAUNCHER.build(&context.workspace)?;
    let turn = TURN.to_string();
    let args = [OsStr::new("--json"), launcher.as_os_str(), OsStr::new(&turn)];
    // The first turn of each pays for cold caches and is thrown away.
    helper::measure(program.as_os_str(), &args)?;
    bwrap()?;
    let (mut ready, mut ended, mut gone, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut notes = Vec::new();
    for _ in 0..context.rounds.div_ceil(TURN) {
        let measured = helper::measure(program.as_os_str(), &args)?;
        ready.extend_from_slice(measured.get("create")?);
        ended.extend_from_slice(measured.get("create_and_true")?);
        gone.extend_from_slice(measured.get("destroy")?);
        notes = measured.notes;
        for _ in 0..TURN {
            theirs.push(bwrap()?);
        }
    }
    let mut report = Report {
        notes,
        ..Report::default()
    };
    report.row("native: created, Guest answers", &ready)?;
    report.row("native: created and /bin/true ended", &ended)?;
    report.row("native: destroyed", &gone)?;
    report.row("bwrap --unshare-all /bin/true", &theirs)?;
    report.compare("native: created and /bin/true ended", "bwrap --unshare-all /bin/true")?;
    Ok(report)
}

/// Milliseconds of one bubblewrap, from start to end.
fn bwrap() -> Result<f64> {
    let start = Instant::now();
    process::run(Command::new("bwrap").args(BWRAP))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
