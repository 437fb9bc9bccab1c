//! The embedded engine: claims runs and gives each a task of its own.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use stockade_domain::RunId;
use stockade_ports::{Activities, Bus, Clock, Engine, EngineError, Store, Topic};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    activity::closed,
    carry::Carrier,
    config::EngineConfig,
    hands::{Hands, Work},
    lock::Lock,
};

/// What all tasks of an engine use.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) activities: Arc<dyn Activities>,
    pub(crate) config: EngineConfig,
    /// Given back when the last task is gone, so that nobody else begins before that.
    _lock: Lock,
}

impl Shared {
    /// Says that a run has changed.
    pub(crate) async fn hint(&self, run: RunId) {
        self.bus.publish(Topic::Run(run)).await;
    }

    /// Says that a run may be claimable.
    pub(crate) async fn hint_queue(&self) {
        self.bus.publish(Topic::Queue).await;
    }
}

/// Drives the runs of one store from one process.
///
/// Dropping it without [`Engine::shutdown`] is like killing the process: tasks end where
/// they stand, and the next start recovers.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    hands: Arc<Hands>,
    closing: watch::Sender<bool>,
    loops: Mutex<Vec<JoinHandle<()>>>,
}

impl EmbeddedEngine {
    /// Takes the lock, recovers what a dead process left behind, and begins to claim runs.
    ///
    /// Runs that were held are let go: one that waited for a person keeps waiting, one that
    /// was being prepared is tried again, one that was working fails as `interrupted`.
    /// Receipts that are missing are made in the background.
    ///
    /// # Errors
    ///
    /// [`EngineError::AlreadyRunning`] when another process has the lock,
    /// [`EngineError::Broken`] when the lock or the store does not work.
    pub async fn start(
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        activities: Arc<dyn Activities>,
        config: EngineConfig,
    ) -> Result<Arc<Self>, EngineError> {
        let shared = Arc::new(Shared {
            _lock: Lock::take(&config.lock_path)?,
            store,
            bus,
            clock,
            activities,
            config,
        });
        let swept = shared.activities.recover().await;
        swept.map_err(|e| EngineError::Broken(format!("what a dead process left could not be removed: {e}")))?;
        let recovered = shared.recover().await;
        recovered.map_err(|e| EngineError::Broken(format!("runs could not be recovered: {e}")))?;
        let engine = Arc::new(Self {
            hands: Arc::default(),
            closing: watch::Sender::new(false),
            loops: Mutex::default(),
            shared,
        });
        let claims = Claims {
            shared: Arc::clone(&engine.shared),
            hands: Arc::clone(&engine.hands),
            closing: engine.closing.subscribe(),
        };
        let hints = engine.shared.bus.subscribe();
        let shared = Arc::clone(&engine.shared);
        let mut closing = engine.closing.subscribe();
        let sealing = async move {
            tokio::select! {
                () = closed(&mut closing) => {}
                sealed = shared.seal_leftovers() => if let Err(error) = sealed {
                    tracing::warn!(%error, "missing receipts could not be looked for; the next start tries again");
                },
            }
        };
        let loops = vec![tokio::spawn(claims.serve(hints)), tokio::spawn(sealing)];
        *engine.loops.lock().unwrap_or_else(PoisonError::into_inner) = loops;
        Ok(engine)
    }

    fn take_loops(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.loops.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Engine for EmbeddedEngine {
    async fn wake(&self, run: RunId) {
        look_after(&self.shared, &self.hands, run);
        self.shared.hint_queue().await;
    }

    /// Stops taking runs and lets go of those in hand: their sandboxes are destroyed, then
    /// they are stepped as if their worker was lost. One that waits for a person keeps
    /// waiting, one that is being prepared goes back into the queue, one that is cancelled
    /// is cancelled, and one whose agent is working fails as `interrupted`, with a receipt.
    async fn shutdown(&self) {
        self.closing.send_replace(true);
        for task in self.take_loops() {
            // It ends by itself: cut off in the middle of a claim it would leave a run to nobody.
            let _ = task.await;
        }
        for task in self.hands.close() {
            if let Err(error) = task.await {
                tracing::error!(%error, "a run in hand broke off; the next start recovers it");
            }
        }
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        for task in self.take_loops().into_iter().chain(self.hands.close()) {
            task.abort();
        }
    }
}

/// Has a run looked at: by its task, or for a receipt when it has none.
fn look_after(shared: &Arc<Shared>, hands: &Arc<Hands>, run: RunId) {
    if hands.wake(run) {
        return;
    }
    let shared = Arc::clone(shared);
    hands.start(run, Work::Seal, |_| async move {
        if let Err(error) = shared.seal_if_missing(run).await {
            tracing::debug!(%run, %error, "a run could not be looked after");
        }
    });
}

/// The loop that claims runs and expires approvals.
struct Claims {
    shared: Arc<Shared>,
    hands: Arc<Hands>,
    closing: watch::Receiver<bool>,
}

impl Claims {
    async fn serve(mut self, mut hints: broadcast::Receiver<Topic>) {
        let mut tick = interval(self.shared.config.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                hint = hints.recv() => match hint {
                    Ok(Topic::Queue) => {}
                    Ok(Topic::Run(run)) => {
                        look_after(&self.shared, &self.hands, run);
                        continue;
                    }
                    Ok(Topic::Revocations) => continue,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.hands.wake_all(),
                    // A bus that is gone leaves the tick.
                    Err(broadcast::error::RecvError::Closed) => {
                        tick.tick().await;
                    }
                },
                _ = tick.tick() => self.expire().await,
                () = closed(&mut self.closing) => return,
            }
            self.claim().await;
        }
    }

    async fn expire(&self) {
        match self.shared.store.expire(self.shared.clock.now()).await {
            Ok(expired) => {
                for approval in expired {
                    self.shared.hint(approval.run).await;
                }
            }
            Err(error) => tracing::warn!(%error, "approvals could not be expired; trying again"),
        }
    }

    /// Takes as many runs as there are free places.
    async fn claim(&self) {
        let places = self.shared.config.max_concurrent.max(1);
        while self.hands.carried() < places && !*self.closing.borrow() {
            let claim = match self.shared.store.claim(self.shared.clock.now()).await {
                Ok(Some(claim)) => claim,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "no run could be claimed; trying again");
                    return;
                }
            };
            let run = claim.run.id;
            let (shared, closing) = (Arc::clone(&self.shared), self.closing.clone());
            let queue = Arc::clone(&self.shared);
            self.hands.start(run, Work::Carry, move |wake| async move {
                shared.hint(run).await;
                Carrier::new(shared, claim, wake, closing).carry().await;
                // A place is free.
                queue.hint_queue().await;
            });
        }
    }
}
