//! Why an effect does not happen.

use stockade_domain::{ActionRecord, BudgetExhausted};
use stockade_ports::StoreError;

/// Why an effect does not happen. Every variant is a no.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The policy, a person or silence said no.
    #[error("refused by {}: {}", record.rule, record.reason)]
    Denied {
        /// The action as written down.
        record: Box<ActionRecord>,
    },
    /// A budget said no.
    #[error("{exhausted}")]
    Exhausted {
        /// Which limit.
        exhausted: BudgetExhausted,
    },
    /// The store did not answer, so nobody may act.
    #[error("refused because the decision could not be written down: {0}")]
    Unrecorded(#[from] StoreError),
}

impl Refusal {
    /// The rule behind it, for events and error bodies.
    pub fn rule(&self) -> &str {
        match self {
            Self::Denied { record } => &record.rule,
            Self::Exhausted { .. } => "stockade.budget",
            Self::Unrecorded(_) => "stockade.store",
        }
    }
}
