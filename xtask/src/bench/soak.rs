//! Ten thousand sandboxes, eight at a time, their supervisor killed now and then: what worked and what is left.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::process::Command;

use super::Context;
use super::helper::Helper;
use super::report::{Rate, Report};
use crate::process;

const LAUNCHER: Helper = Helper {
    package: "stockade-sandbox",
    kind: "bin",
    name: "stockade-sandbox-launcher",
};
const SOAK: Helper = Helper {
    package: "stockade-sandbox",
    kind: "example",
    name: "soak",
};
const COUNT: &str = "10000";
const AT_ONCE: &str = "8";
const KILLS: &str = "20";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let launcher = LAUNCHER.build(&context.workspace)?;
    let soak = SOAK.build(&context.workspace)?;
    let mut command = Command::new(soak);
    command.arg(launcher).args([COUNT, AT_ONCE, KILLS]);
    let said = process::capture(&mut command)?;
    let result: Value = serde_json::from_str(said.stdout.trim()).context("the soak did not end with a result")?;
    let number = |key: &str| result[key].as_u64().with_context(|| format!("no {key} in {result}"));
    let failed = result["failed"].as_array().map_or(0, Vec::len);
    let made = number("made")?;
    let seconds = result["seconds"].as_f64().context("no time")?;
    let left = result["left"].as_object().context("nothing was counted")?;
    let left: u64 = left.values().filter_map(Value::as_u64).sum();
    if failed > 0 || left > 0 {
        bail!("{failed} sandboxes failed and {left} traces are left: {result}");
    }
    let mut report = Report::default();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    report.rates.push(Rate {
        what: "sandboxes made, measured, used and destroyed".to_owned(),
        per_second: made as f64 / seconds,
    });
    report.notes.push(format!(
        "{made} sandboxes worked and 0 failed, {AT_ONCE} at a time; {} supervisors were killed with `kill -9` and {} \
         sandboxes with them. Left afterwards: {}, and {} descriptors in the last supervisor.",
        number("supervisors_killed")?,
        number("killed_with_their_supervisor")?,
        result["left"],
        result["descriptors_left_in_supervisor"],
    ));
    Ok(report)
}
