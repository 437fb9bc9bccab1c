//! Making the receipts of runs that have ended.

use std::sync::Arc;

use stockade_domain::RunId;
use stockade_ports::StoreError;

use crate::{activity::Task, engine::Shared, patience};

/// The artifact a sealed run has.
const RECEIPT: &str = "receipt";

impl Shared {
    /// Makes the receipt of a terminal run, trying again what may pass by itself. What does
    /// not pass is made up for at the next start.
    pub(crate) async fn seal(&self, run: RunId) {
        for attempt in 1..=self.config.attempts.max(1) {
            let activities = Arc::clone(&self.activities);
            let mut sealing = Task::start(async move { activities.seal(run).await });
            let failure = match sealing.ended().await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) | Err(failure) => failure,
            };
            tracing::warn!(%run, attempt, %failure, "the receipt could not be made");
            if !failure.may_retry() {
                return;
            }
            if attempt < self.config.attempts {
                patience::pause(attempt).await;
            }
        }
    }

    /// Makes the receipt of a run that has ended and has none.
    pub(crate) async fn seal_if_missing(&self, run: RunId) -> Result<(), StoreError> {
        if !self.store.run(None, run).await?.state().is_terminal() {
            return Ok(());
        }
        match self.store.artifact(run, RECEIPT).await {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound { .. }) => {
                self.seal(run).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
