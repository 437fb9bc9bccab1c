//! One pull for all who ask for the same at the same time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use stockade_ports::PullProgress;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{fault::Fault, pull::Prepared};

/// How often progress is told.
const TOLD: Duration = Duration::from_millis(100);

/// How far a pull is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: AtomicU64,
    downloaded: AtomicU64,
    unpacked: AtomicU64,
}

impl Meter {
    pub(crate) fn expect(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn downloaded(&self, bytes: u64) {
        self.0.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that have to come again.
    pub(crate) fn lost(&self, bytes: u64) {
        self.0.downloaded.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn unpacked(&self, bytes: u64) {
        self.0.unpacked.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tell(&self, progress: &dyn PullProgress) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (total, downloaded, unpacked) = (get(&self.0.total), get(&self.0.downloaded), get(&self.0.unpacked));
        match () {
            () if total == 0 => progress.at("resolve", 0, 0),
            () if downloaded < total => progress.at("download", downloaded, total),
            () => progress.at("unpack", unpacked.min(total), total),
        }
    }
}

type Outcome = Option<Result<Arc<Prepared>, Fault>>;

/// A pull that is under way. It ends when nobody waits for it.
pub(crate) struct Flight {
    meter: Meter,
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Unpacking runs on a thread of its own and asks from time to time.
        self.cancelled.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

impl Flight {
    /// Waits for the end and tells how far it is.
    pub(crate) async fn land(&self, progress: &dyn PullProgress) -> Result<Arc<Prepared>, Fault> {
        let mut outcome = self.outcome.clone();
        let mut ticks = interval(TOLD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = outcome.wait_for(Option::is_some) => {
                    let ended = ended.ok().and_then(|outcome| outcome.clone());
                    return ended.unwrap_or_else(|| Err(Fault::Store("the pull was broken off".to_owned())));
                }
                _ = ticks.tick() => self.meter.tell(progress),
            }
        }
    }
}

/// All pulls under way.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

impl Flights {
    /// The pull of that name, started if there is none.
    pub(crate) fn join<F, R>(&self, key: String, start: F) -> Arc<Flight>
    where
        F: FnOnce(Meter, Arc<AtomicBool>) -> R,
        R: Future<Output = Result<Arc<Prepared>, Fault>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        let current = flights.get(&key).and_then(Weak::upgrade);
        // One that has landed answered an earlier question: a tag may have moved since.
        if let Some(flight) = current.filter(|flight| flight.outcome.borrow().is_none()) {
            return flight;
        }
        let (meter, cancelled) = (Meter::default(), Arc::new(AtomicBool::new(false)));
        let (tell, outcome) = watch::channel(None);
        let pull = start(meter.clone(), Arc::clone(&cancelled));
        let task = tokio::spawn(async move {
            tell.send_replace(Some(pull.await));
        });
        let flight = Arc::new(Flight {
            meter,
            outcome,
            task: task.abort_handle(),
            cancelled,
        });
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}
