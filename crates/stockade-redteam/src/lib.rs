//! The red team: attacks a sandbox from inside and believes nothing that has no control.
//!
//! Every case runs an attack twice with the same static binary: inside a sandbox of the
//! installation's own configuration, where it must fail, and where nothing stops it (outside,
//! against things planted for it, or in its allowed form inside), where it must succeed. What
//! counts is what the host sees: planted files unchanged, planted servers not reached, planted
//! processes alive, the Guard's own word for a denial. A case whose control fails is void, and
//! void is not a pass.
//!
//! | Module | Part |
//! |---|---|
//! | `field` | the sandboxes, what is planted around them, runs for them |
//! | `canary` | servers that must not be reached, the name server that must not be asked |
//! | `world` | what stands behind the names the Guard is asked for |
//! | `ferry`, `talk`, `hello` | what is said from inside, and over the open road |
//! | `capture` | packets that left the host's side of a boundary |
//! | `shelf` | a registry with images an attacker made |
//! | `plant` | files that must not change and must not be read |
//! | `inside`, `outside` | the attacker on both sides, and what it told |
//! | `cases` | the attacks |
//! | `neighbour` | how long a neighbour's commands take before and during one |
//! | `judge` | from what was seen to a verdict; pure |
//! | `surface` | the kernel-surface score, and that of other sandboxes |

mod canary;
mod capture;
mod cases;
mod ferry;
mod field;
mod hello;
mod host;
mod inside;
mod judge;
mod neighbour;
mod outside;
mod plant;
mod report;
mod shelf;
mod surface;
mod talk;
mod told;
mod world;

use std::{sync::Arc, time::Instant};

pub use canary::{Canaries, TWIN_HOST};
pub use field::{Parts, twin};
pub use judge::{Attempt, Excuse, Sighting, Verdict};
pub use report::{BackendReport, CaseReport, Group, Report, Score};
pub use surface::{Peers, unconfined};

use crate::{cases::Case, field::Field, report::Proved};

/// The static attacker, built by this crate's build script.
pub(crate) static ATTACKER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/attacker.bin"));

/// Why the red team could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RedTeamError {
    /// Something on the host could not be planted or started.
    #[error("the red team cannot prepare {what}: {cause}")]
    Prepare {
        /// What.
        what: String,
        /// Why.
        cause: String,
    },
    /// There is no sandbox to attack.
    #[error("no sandbox to attack: {0}")]
    Sandbox(String),
}

pub(crate) fn prepare<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> RedTeamError {
    let what = what.into();
    move |cause| RedTeamError::Prepare {
        what,
        cause: cause.to_string(),
    }
}

/// Attacks one backend with every case. `watch` is told each case as it ends.
///
/// # Errors
///
/// [`RedTeamError`] when it could not begin; a case that goes wrong is in the report.
pub async fn attack(parts: Parts, watch: &(dyn Fn(&CaseReport) + Sync)) -> Result<BackendReport, RedTeamError> {
    let begun = Instant::now();
    let mut field = Field::prepare(parts).await?;
    let mut reports = Vec::new();
    for case in cases::all() {
        let report = carry_out(&field, case).await;
        watch(&report);
        reports.push(report);
        if field.repair().await.is_err() {
            break;
        }
    }
    let left_out = cases::all().len() - reports.len();
    let score = surface::inside(&field).await;
    let proved = field
        .proved
        .iter()
        .map(|check| Proved {
            name: check.name.to_owned(),
            seen: check.seen.clone(),
        })
        .collect();
    let report = BackendReport {
        backend: field.parts.sandbox.name().to_owned(),
        mode: field.facts.mode.clone(),
        enforced_limits: field.facts.enforced_limits.clone(),
        proved,
        cases: reports,
        left_out,
        score,
        millis: millis(begun),
    };
    field.clear().await;
    Ok(report)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn carry_out(field: &Field, case: &Case) -> CaseReport {
    let begun = Instant::now();
    let target = Arc::clone(&field.target);
    let mut trial = (case.run)(field, &target).await;
    if !target.is_healthy().await {
        trial.broken = Some(format!(
            "the sandbox is not well afterwards: {}",
            target.ailment().await
        ));
    }
    let planted = field.plants.unchanged();
    if !planted.ok {
        field.plants.restore();
    }
    trial.host.push(planted);
    let judged = judge::judge(&trial, field.root);
    CaseReport {
        id: case.id.to_owned(),
        group: case.group,
        tried: case.tried.to_owned(),
        expected: case.expected.to_owned(),
        verdict: judged.verdict,
        reasons: judged.reasons,
        excuse: judged.excuse,
        uncontrolled: judged.uncontrolled,
        inside: trial.inside,
        control: trial.control,
        host: trial.host,
        control_host: trial.control_host,
        millis: millis(begun),
    }
}
