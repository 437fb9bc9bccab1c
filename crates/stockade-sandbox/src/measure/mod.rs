//! Measures a fresh sandbox: what the Guest saw from inside, what only the host can know.

mod judge;

use std::{sync::Arc, time::Instant};

use stockade_ports::sandbox::{Measurement, ProbePlan, SandboxError};

use self::judge::Seen;
use crate::{
    cgroup,
    live::{Life, Live},
};

/// Measures every check of [`stockade_ports::sandbox::MEASURED_INSIDE`].
pub(crate) async fn measure<L: Life>(live: &Live<L>, plan: &ProbePlan) -> Result<Measurement, SandboxError> {
    let begun = Instant::now();
    let life = Arc::clone(&live.life);
    // The kernel's files are read while the Guest probes.
    let in_force = tokio::task::spawn_blocking(move || cgroup::limits_in_force(life.cgroups()));
    let observed = live.client.probe(plan).await?;
    let in_force = in_force.await.map_err(|e| SandboxError::Setup {
        step: "read back the limits in force".to_owned(),
        cause: e.to_string(),
    })?;
    let seen = Seen {
        observed: &observed,
        limits: &live.limits,
        enforced: &live.enforced,
        in_force: &in_force,
    };
    let mut measurement = judge::judge(&seen, plan);
    measurement.micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(
        micros = measurement.micros,
        inside = observed.micros,
        "measured a sandbox"
    );
    Ok(measurement)
}
