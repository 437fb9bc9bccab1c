//! Time of a verdict with very many egress rules.

use anyhow::Result;

use super::Context;
use super::helper::{self, Helper};
use super::report::Report;

const HELPER: Helper = Helper {
    package: "stockade-policy",
    kind: "example",
    name: "policy_bench",
};

pub(crate) fn run(context: &Context) -> Result<Report> {
    let program = HELPER.build(&context.workspace)?;
    let rounds = (context.rounds * 20).to_string();
    helper::measure(program.as_os_str(), &[rounds.as_ref()])?.report()
}
