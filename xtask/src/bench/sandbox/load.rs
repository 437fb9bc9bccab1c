//! Claims, bursts, rates, idle sandboxes, and work inside.

use anyhow::{Context as _, Result};

use super::{BWRAP, Programs, QUICK, measure, peers};
use crate::bench::{
    report::{Rate, Report},
    stats::percentile,
};

const BURST: usize = 50;
const LIVES: usize = 1000;
const IDLE: usize = 1000;
const WORK: usize = 10;

/// `single` is the median of a lone cold start in milliseconds.
pub(super) fn run(programs: &Programs, single: f64, report: &mut Report) -> Result<()> {
    let load = |mode: &str, count: usize| measure(&programs.load, &[mode], &programs.launcher, &count.to_string());
    let warm = load("warm", QUICK)?;
    report.row("native: claimed from the warm pool", warm.get("claim")?)?;
    report.row("native: claimed, proved, /bin/true ended", warm.get("claim_and_true")?)?;

    let burst = load("burst", BURST)?;
    let burst = burst.get("burst")?;
    report.row("native: 50 at once, each until /bin/true ended", burst)?;
    let p95 = percentile(burst, 95).context("no samples of a burst")?;
    let theirs = peers::bwrap_burst(BURST)?;
    report.row("bwrap: 50 at once", &theirs)?;
    let their_p95 = percentile(&theirs, 95).context("no samples of a burst")?;
    let their_single = report.median(BWRAP)?;
    report.notes.push(format!(
        "50 at once: p95 {p95:.1} ms, {:.1} × the median of one alone; bwrap's {their_p95:.1} ms, {:.1} × its own; \
         ours {:.2} × bwrap's",
        p95 / single,
        their_p95 / their_single,
        p95 / their_p95,
    ));

    for (mode, what) in [
        ("bare", "native: created and destroyed, 8 at a time"),
        ("rate", "native: created, proved, /bin/true, destroyed, 8 at a time"),
    ] {
        for (_, per_second) in load(mode, LIVES)?.rates {
            let what = what.to_owned();
            report.rates.push(Rate { what, per_second });
        }
    }

    report.rates.push(Rate {
        what: "bwrap --unshare-all /bin/true, 8 at a time".to_owned(),
        per_second: peers::bwrap_rate()?,
    });

    let idle = load("idle", IDLE)?;
    let each = |name: &str| -> Result<f64> { idle.get(name)?.first().copied().context("nothing was measured") };
    report.notes.push(format!(
        "{IDLE} idle sandboxes at once, each: PSS {:.2} MiB (Guest {:.2}, launcher {:.2}, share of the supervisor {:.2}); \
         all memory of the machine, the kernel's included, {:.2} MiB",
        each("idle_pss_mib")?,
        each("idle_guest_mib")?,
        each("idle_launcher_mib")?,
        each("idle_supervisor_mib")?,
        each("idle_whole_machine_mib")?,
    ));

    let work = measure(&programs.work, &[], &programs.launcher, &WORK.to_string())?;
    let (inside, outside) = ("git clone, build, test: inside", "git clone, build, test: outside");
    report.row(inside, work.get("inside")?)?;
    report.row(outside, work.get("outside")?)?;
    report.compare(inside, outside)
}
