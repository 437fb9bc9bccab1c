//! What an engine finds when it starts: runs whose process is gone.

use stockade_domain::{Run, RunId, RunInput, RunState};
use stockade_ports::{Bus, Clock, EngineError, Store, StoreError, Topic};

use crate::{config::EngineConfig, engine::Shared, lock::Lock, patience};

/// Runs read at once.
const PAGE: u32 = 200;
/// States a run is in while a process holds it.
const HELD: [RunState; 3] = [RunState::Provisioning, RunState::Running, RunState::Waiting];

/// Lets go of the runs that a dead process held, when no engine is alive that would: for a
/// process that answers questions without driving runs. An answer to a run that still looks
/// held would read as "the agent works on". Gives whether it looked.
///
/// # Errors
///
/// [`EngineError::Broken`] when the lock or the store does not work.
pub async fn release_abandoned(
    store: &dyn Store,
    bus: &dyn Bus,
    clock: &dyn Clock,
    config: &EngineConfig,
) -> Result<bool, EngineError> {
    let broken = |error: StoreError| EngineError::Broken(format!("runs could not be recovered: {error}"));
    let recovery = Recovery {
        store,
        bus,
        clock,
        attempts: config.attempts,
    };
    // The lock is an engine's; it is not taken for nothing.
    if !recovery.any().await.map_err(broken)? {
        return Ok(false);
    }
    match Lock::take(&config.lock_path) {
        Ok(_lock) => recovery.all().await.map_err(broken).map(|()| true),
        Err(EngineError::AlreadyRunning { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets go of runs. Whoever does that has the engine's lock.
struct Recovery<'a> {
    store: &'a dyn Store,
    bus: &'a dyn Bus,
    clock: &'a dyn Clock,
    attempts: u32,
}

impl Recovery<'_> {
    /// Whether any run looks held.
    async fn any(&self) -> Result<bool, StoreError> {
        let mut before = None;
        loop {
            let page = self.page(before).await?;
            if page.iter().any(|run| run.machine.attached) {
                return Ok(true);
            }
            match page.last() {
                Some(last) => before = Some(last.id),
                None => return Ok(false),
            }
        }
    }

    async fn all(&self) -> Result<(), StoreError> {
        let mut before = None;
        loop {
            let page = self.page(before).await?;
            for run in page.iter().filter(|run| run.machine.attached) {
                self.let_go(run.id).await?;
            }
            match page.last() {
                Some(last) => before = Some(last.id),
                None => return Ok(()),
            }
        }
    }

    async fn page(&self, before: Option<RunId>) -> Result<Vec<Run>, StoreError> {
        patience::ask(self.attempts, || self.store.runs(None, &HELD, before, PAGE)).await
    }

    async fn let_go(&self, run: RunId) -> Result<(), StoreError> {
        let step = || self.store.step(run, None, RunInput::WorkerLost, self.clock.now());
        match patience::ask(self.attempts, step).await {
            Ok((now, _)) => {
                tracing::info!(%run, state = now.state().as_str(), "recovered a run whose process is gone");
                self.bus.publish(Topic::Run(run)).await;
                Ok(())
            }
            // Somebody has just cancelled it.
            Err(StoreError::Illegal(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    /// Lets go of every run that a process held which is gone: this engine has the lock, so
    /// nobody holds any.
    pub(crate) async fn recover(&self) -> Result<(), StoreError> {
        let recovery = Recovery {
            store: self.store.as_ref(),
            bus: self.bus.as_ref(),
            clock: self.clock.as_ref(),
            attempts: self.config.attempts,
        };
        recovery.all().await
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
