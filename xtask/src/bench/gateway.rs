//! What the model gateway adds to a call, beside the same call without it.

use anyhow::Result;

use super::Context;
use super::helper::{self, Helper};
use super::report::Report;

const HELPER: Helper = Helper {
    package: "stockade-gateway",
    kind: "example",
    name: "llm_bench",
};

pub(crate) fn run(context: &Context) -> Result<Report> {
    let program = HELPER.build(&context.workspace)?;
    let rounds = (context.rounds * 10).to_string();
    let mut report = helper::measure(program.as_os_str(), &[rounds.as_ref()])?.report()?;
    report.compare("gateway", "direct")?;
    Ok(report)
}
