//! Signs of life: an agent that gives none for too long is stopped.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use stockade_domain::{Failure, RunId, RunState};
use stockade_gate::Gate;
use stockade_ports::Topic;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, Instant},
};

/// Longest pause between two looks at a silent run.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// When something was last heard. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something was heard.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns once the run has shown no sign of life for that long while it did not wait for
/// a person. A hint about the run counts as a sign, as does every byte of its agent.
pub(crate) async fn silence(gate: &Gate, run: RunId, limit: Duration, pulse: &Pulse) -> Failure {
    // Looked at more often than the limit, so that a wait that ends just before it passes
    // does not count as silence of the agent.
    let look = (limit / 4).clamp(Duration::from_millis(50), LONGEST_LOOK);
    let mut hints = gate.bus().subscribe();
    loop {
        let hint = async {
            loop {
                match hints.recv().await {
                    Ok(topic) if topic == Topic::Run(run) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                }
            }
        };
        tokio::select! {
            () = hint => pulse.beat(),
            () = time::sleep(look) => {
                let silent = pulse.last().elapsed();
                if silent < look {
                    continue;
                }
                // A store that does not answer is no proof of silence; the gate deals with it.
                let waits = match gate.store().run(None, run).await {
                    Ok(run) => run.state() == RunState::Waiting,
                    Err(_) => true,
                };
                if waits {
                    pulse.beat();
                } else if silent >= limit {
                    return inactive(limit);
                }
            }
        }
    }
}

fn inactive(limit: Duration) -> Failure {
    let message = format!("the agent gave no sign of life for {} seconds", limit.as_secs());
    Failure::terminal("inactive", message)
        .with_hint("raise limits.inactivity_seconds where the agent runs long quiet commands")
}
