//! The engine port: carries runs through their life by the step function of the domain.

use async_trait::async_trait;
use stockade_domain::{Failure, Run, RunId, RunResult};

use crate::Lease;

/// Drives runs. Embedded (one process) or a workflow service.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Says that a run may be claimable or should stop. A hint; the store is asked.
    async fn wake(&self, run: RunId);

    /// Stops taking runs and lets go of those in hand, then returns.
    async fn shutdown(&self);
}

/// Why an engine could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process drives this store.
    #[error(
        "another process already drives the runs in {place} (process {holder}); stop it, or use another state directory"
    )]
    AlreadyRunning {
        /// The state directory.
        place: String,
        /// The process, as it wrote itself down.
        holder: String,
    },
    /// Something underneath failed.
    #[error("the engine cannot go on: {0}")]
    Broken(String),
}

/// What an engine has done for it, run by run. Implemented by the runner.
///
/// Calls for one run never overlap except `stop`, which may come at any time during
/// `provision`, `drive` or `export` and makes them return early with a failure whose code
/// is `stopped`. Every method may be cancelled by dropping it; `cleanup` then still works.
#[async_trait]
pub trait Activities: Send + Sync {
    /// Removes what a dead process left: sandboxes and working files. An engine calls it
    /// once, when it alone drives the store and before it takes the first run.
    async fn recover(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Makes sandbox and boundary, brings the repository in.
    async fn provision(&self, run: &Run, lease: Lease) -> Result<(), Failure>;

    /// Starts the agent and sees it through until it has nothing left to do.
    async fn drive(&self, run: &Run, lease: Lease) -> Result<(), Failure>;

    /// Brings the change out of the sandbox.
    async fn export(&self, run: &Run, lease: Lease) -> Result<RunResult, Failure>;

    /// Asks the agent to stop.
    async fn stop(&self, run: RunId);

    /// Destroys the sandbox after its connections are settled. Idempotent.
    async fn cleanup(&self, run: RunId);

    /// Makes and stores the receipt of a terminal run. Idempotent.
    async fn seal(&self, run: RunId) -> Result<(), Failure>;
}
