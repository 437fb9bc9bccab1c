//! Asking whether a push or a fetch may happen.

use async_trait::async_trait;
use serde_json::Value;
use stockade_domain::{Action, ActionKind, Amounts, Outcome};
use stockade_gate::{Admitted, kind};

use crate::{passage::Passage, session::Denial};

/// Where the git part asks. Every question is written down by whoever answers.
#[async_trait]
pub trait Door: Send + Sync {
    /// Asks, and waits for a person where one must decide. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// [`Refused`] when it may not happen.
    async fn ask(&self, action: Action) -> Result<Box<dyn Pass>, Refused>;
}

/// Leave to do it once; it must be settled.
#[async_trait]
pub trait Pass: Send + Sync {
    /// What was admitted. A person may have edited it.
    fn action(&self) -> &Action;

    /// Whether a person said yes; otherwise the policy did.
    fn is_approved(&self) -> bool;

    /// Says how it ended.
    async fn settle(self: Box<Self>, outcome: Outcome, details: Value);
}

/// Why it may not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule.
    pub rule: String,
    /// Why, for a reader.
    pub reason: String,
}

/// The gate of a run as a door.
pub(crate) struct GateDoor(pub(crate) Passage);

#[async_trait]
impl Door for GateDoor {
    async fn ask(&self, action: Action) -> Result<Box<dyn Pass>, Refused> {
        match action.kind {
            ActionKind::Export => pass(self.0.pass::<kind::Export>(action).await),
            _ => pass(self.0.pass::<kind::Egress>(action).await),
        }
    }
}

fn pass<K: kind::Kind>(passed: Result<Admitted<K>, Denial>) -> Result<Box<dyn Pass>, Refused> {
    match passed {
        Ok(admitted) => Ok(Box::new(admitted)),
        Err(Denial { rule, reason }) => Err(Refused { rule, reason }),
    }
}

#[async_trait]
impl<K: kind::Kind> Pass for Admitted<K> {
    fn action(&self) -> &Action {
        Admitted::action(self)
    }

    fn is_approved(&self) -> bool {
        Admitted::is_approved(self)
    }

    async fn settle(self: Box<Self>, outcome: Outcome, details: Value) {
        if let Err(error) = Admitted::settle(*self, outcome, Amounts::ZERO, details).await {
            tracing::warn!(%error, "how a push ended could not be written down");
        }
    }
}
