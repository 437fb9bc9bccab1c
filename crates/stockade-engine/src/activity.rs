//! Doing one activity: guarded against panics, watched, stopped when it must end.

use std::{pin::Pin, sync::Arc, time::Duration};

use stockade_domain::{Failure, Run, RunInput};
use stockade_ports::{Activities, Lease};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, timeout},
};

/// Hints come with every event; so many milliseconds of them cost one look at the store.
const LULL: Duration = Duration::from_millis(20);

/// The part of a run's life an activity is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Provision,
    Drive,
    Export,
}

/// What a look at the store tells a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Go on.
    Go,
    /// A person wants the run to end.
    Cancelled,
    /// Its time is over.
    OutOfTime,
    /// It has ended, or another worker has it.
    Gone,
}

/// A look under way.
pub(crate) type Looking<'a> = Pin<Box<dyn Future<Output = Look> + Send + 'a>>;

/// How an activity ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is done; this is what to feed.
    Done(RunInput),
    /// It failed by itself.
    Failed(Failure),
    /// It was stopped because of what the store says.
    Stopped(Look),
    /// It was dropped because the engine shuts down.
    Closing,
}

/// A task that does not outlive whoever waits for it.
pub(crate) struct Task<T> {
    handle: Option<JoinHandle<T>>,
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            handle: Some(tokio::spawn(work)),
        }
    }

    /// Waits for it; may be dropped and called again until it has ended once.
    pub(crate) async fn ended(&mut self) -> Result<T, Failure> {
        let Some(handle) = &mut self.handle else {
            return std::future::pending().await;
        };
        let ended = handle.await;
        self.handle = None;
        ended.map_err(|error| broken(&error))
    }

    /// Ends it now and waits until nothing of it is left.
    async fn end(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.abort();
            let _ = handle.await;
        }
    }
}

/// A panic is a mistake in the program; what it left behind nobody knows.
fn broken(error: &JoinError) -> Failure {
    let code = if error.is_panic() { "panic" } else { "interrupted" };
    Failure::unknown(code, format!("an activity of the runner broke off: {error}"))
        .with_hint("look into the log of the process; this is a defect of Stockade, please report it")
}

/// What an activity is done with.
pub(crate) struct Performer<'a> {
    pub(crate) activities: &'a Arc<dyn Activities>,
    pub(crate) wake: &'a Notify,
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) tick: Duration,
    pub(crate) grace: Duration,
}

impl Performer<'_> {
    fn start(&self, phase: Phase, run: &Run, lease: Lease) -> Task<Result<RunInput, Failure>> {
        let (activities, run) = (Arc::clone(self.activities), run.clone());
        Task::start(async move {
            match phase {
                Phase::Provision => activities.provision(&run, lease).await.map(|()| RunInput::Provisioned),
                Phase::Drive => activities.drive(&run, lease).await.map(|()| RunInput::AgentFinished),
                Phase::Export => activities.export(&run, lease).await.map(RunInput::Exported),
            }
        })
    }

    /// Sees an activity through, looking at the store on every hint and tick.
    pub(crate) async fn perform<'l>(
        mut self,
        phase: Phase,
        run: &Run,
        lease: Lease,
        look: impl Fn() -> Looking<'l>,
    ) -> Ended {
        let mut work = self.start(phase, run, lease);
        loop {
            tokio::select! {
                biased;
                ended = work.ended() => return flat(ended),
                () = closed(&mut self.closing) => {
                    work.end().await;
                    return Ended::Closing;
                }
                () = nudged(self.wake) => {}
                () = sleep(self.tick) => {}
            }
            match look().await {
                Look::Go => {}
                Look::Gone => {
                    work.end().await;
                    return Ended::Stopped(Look::Gone);
                }
                why => return self.stop(work, run, phase, why).await,
            }
        }
    }

    /// Asks the activity to stop, and drops it when it does not.
    async fn stop(&self, mut work: Task<Result<RunInput, Failure>>, run: &Run, phase: Phase, why: Look) -> Ended {
        let until = Instant::now() + self.grace;
        let (activities, id) = (Arc::clone(self.activities), run.id);
        let mut asking = Task::start(async move { activities.stop(id).await });
        if let Ok(Err(failure)) = timeout(self.grace, asking.ended()).await {
            tracing::warn!(run = %run.id, %failure, "asking the agent to stop failed");
        }
        asking.end().await;
        let ended = tokio::time::timeout_at(until, work.ended()).await;
        work.end().await;
        match (ended.map(flat), why) {
            // What had left the sandbox before the time was over is the result.
            (Ok(Ended::Done(input)), Look::OutOfTime) if phase == Phase::Export => Ended::Done(input),
            _ => Ended::Stopped(why),
        }
    }
}

fn flat(ended: Result<Result<RunInput, Failure>, Failure>) -> Ended {
    match ended {
        Ok(Ok(input)) => Ended::Done(input),
        Ok(Err(failure)) | Err(failure) => Ended::Failed(failure),
    }
}

/// Waits for a shutdown. An engine that is gone without one is no shutdown: its tasks end
/// where they stand.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    let gone = closing.wait_for(|closing| *closing).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}

async fn nudged(wake: &Notify) {
    wake.notified().await;
    sleep(LULL).await;
}
