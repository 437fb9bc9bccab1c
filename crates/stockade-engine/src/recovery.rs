//! What an engine finds when it starts: runs whose process is gone.

use stockade_domain::{Run, RunId, RunInput, RunState};
use stockade_ports::StoreError;

use crate::{engine::Shared, patience};

/// Runs read at once.
const PAGE: u32 = 200;

impl Shared {
    /// Lets go of every run that a process held which is gone: this engine has the lock, so
    /// nobody holds any.
    pub(crate) async fn recover(&self) -> Result<(), StoreError> {
        let held = [RunState::Provisioning, RunState::Running, RunState::Waiting];
        let mut before = None;
        loop {
            let page = self.page(&held, before).await?;
            for run in page.iter().filter(|run| run.machine.attached) {
                self.let_go(run.id).await?;
            }
            match page.last() {
                Some(last) => before = Some(last.id),
                None => return Ok(()),
            }
        }
    }

    async fn let_go(&self, run: RunId) -> Result<(), StoreError> {
        let step = || self.store.step(run, None, RunInput::WorkerLost, self.clock.now());
        match patience::ask(self.config.attempts, step).await {
            Ok((now, _)) => {
                tracing::info!(%run, state = now.state().as_str(), "recovered a run whose process is gone");
                self.hint(run).await;
                Ok(())
            }
            // Somebody has just cancelled it.
            Err(StoreError::Illegal(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the receipts that are missing, newest first.
    pub(crate) async fn seal_leftovers(&self) -> Result<(), StoreError> {
        let ended = [RunState::Completed, RunState::Failed, RunState::Cancelled];
        let mut before = None;
        loop {
            let page = self.page(&ended, before).await?;
            for run in &page {
                self.seal_if_missing(run.id).await?;
            }
            match page.last() {
                Some(last) => before = Some(last.id),
                None => return Ok(()),
            }
        }
    }

    async fn page(&self, states: &[RunState], before: Option<RunId>) -> Result<Vec<Run>, StoreError> {
        patience::ask(self.config.attempts, || self.store.runs(None, states, before, PAGE)).await
    }
}
