//! The revocations in force, read from the store on a hint and from time to time without one.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stockade_domain::Revocation;
use stockade_gate::Gate;
use stockade_ports::Topic;
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};

/// How often the store is read without a hint.
const POLL: Duration = Duration::from_millis(400);

/// What is in force, for every session of a process.
pub(crate) struct Feed {
    gate: Gate,
    patience: Duration,
    start: Instant,
    /// When the store last answered, in milliseconds since the start.
    read_at: AtomicU64,
    state: watch::Sender<State>,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) list: Arc<Vec<Revocation>>,
    /// The store did not answer for too long.
    pub(crate) unknown: bool,
}

impl Feed {
    /// Starts to read. A store that does not answer for longer than `patience` makes everything
    /// unknown.
    pub(crate) fn start(gate: Gate, patience: Duration) -> Arc<Self> {
        let feed = Arc::new(Self {
            patience,
            start: Instant::now(),
            read_at: AtomicU64::new(0),
            state: watch::Sender::default(),
            gate,
        });
        tokio::spawn(follow(Arc::downgrade(&feed), feed.gate.bus().subscribe()));
        feed
    }

    /// Reads the store now; false when it does not answer.
    pub(crate) async fn read(&self) -> bool {
        let begun = self.now();
        let reading = self.gate.store().revocations(None, None, true);
        let list = match timeout(self.patience, reading).await {
            Ok(Ok(list)) => list,
            failed => {
                let error = failed.map_or_else(|_| "no answer in time".to_owned(), |read| format!("{:?}", read.err()));
                tracing::warn!(error, "revocations could not be read");
                if !self.is_fresh() {
                    self.set(|state| state.unknown = true);
                }
                return false;
            }
        };
        self.read_at.fetch_max(begun, Ordering::SeqCst);
        self.set(|state| {
            if *state.list != list {
                state.list = Arc::new(list);
            }
            state.unknown = false;
        });
        true
    }

    /// Whether what is known is new enough to act on.
    pub(crate) fn is_fresh(&self) -> bool {
        let age = self.now().saturating_sub(self.read_at.load(Ordering::SeqCst));
        age <= millis(self.patience)
    }

    /// What is known now, and every change from here on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Keeps a feed up to date as long as somebody has it; nothing is read while no session is open.
async fn follow(feed: Weak<Feed>, mut hints: broadcast::Receiver<Topic>) {
    loop {
        let _ = timeout(POLL, hinted(&mut hints)).await;
        let Some(feed) = feed.upgrade() else { return };
        if feed.state.receiver_count() > 0 {
            feed.read().await;
        }
    }
}

async fn hinted(hints: &mut broadcast::Receiver<Topic>) {
    loop {
        match hints.recv().await {
            Ok(Topic::Revocations) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            Ok(_) => {}
        }
    }
}
