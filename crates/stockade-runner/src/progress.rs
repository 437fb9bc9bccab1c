//! Tells a run's readers how far something slow has come.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::json;
use stockade_domain::{EventType, NewEvent};
use stockade_gate::{Gate, Scope};
use stockade_ports::PullProgress;

/// Time between two events of one step.
const PACE: Duration = Duration::from_secs(1);

/// Turns progress into events, one a second at most and the first of each step at once.
pub(crate) struct Progress {
    gate: Gate,
    scope: Scope,
    what: &'static str,
    name: String,
    last: Mutex<(&'static str, Instant)>,
}

impl Progress {
    /// Says that it begins.
    pub(crate) async fn begin(gate: &Gate, scope: &Scope, what: &'static str, name: &str) -> Self {
        let progress = Self {
            gate: gate.clone(),
            scope: scope.clone(),
            what,
            name: name.to_owned(),
            last: Mutex::new(("begin", Instant::now())),
        };
        progress.tell("begin", 0, 0).await;
        progress
    }

    async fn tell(&self, step: &'static str, done: u64, total: u64) {
        tell(&self.gate, &self.scope, self.event(step, done, total)).await;
    }

    fn event(&self, step: &'static str, done: u64, total: u64) -> NewEvent {
        let data = json!({ "what": self.what, "name": self.name, "step": step, "done": done, "total": total });
        NewEvent::new(EventType::SandboxProgress, data)
    }
}

async fn tell(gate: &Gate, scope: &Scope, event: NewEvent) {
    if let Err(error) = gate.record(scope, vec![event]).await {
        tracing::debug!(run = %scope.run(), %error, "progress was not told");
    }
}

impl PullProgress for Progress {
    fn at(&self, step: &'static str, done: u64, total: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 == step && last.1.elapsed() < PACE {
            return;
        }
        *last = (step, Instant::now());
        let (gate, scope, event) = (self.gate.clone(), self.scope.clone(), self.event(step, done, total));
        tokio::spawn(async move { tell(&gate, &scope, event).await });
    }
}
