//! Admissions, and effectors that open to nothing else.

use std::{marker::PhantomData, sync::Arc};

use serde_json::{Value, json};
use stockade_domain::{Action, ActionId, ActionKind, ActionRecord, Amounts, Outcome, Wire};
use stockade_ports::{Bus, Clock, ModelProvider, Settle, Store, StoreError, Topic};

use crate::kind::Kind;

/// What settling needs, shared by the gate and its admissions.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Shared {
    async fn settle(
        &self,
        record: &ActionRecord,
        outcome: Outcome,
        spent: Amounts,
        details: Value,
    ) -> Result<(), StoreError> {
        let settle = Settle {
            id: record.id,
            run: record.run,
            outcome,
            spent,
            details,
            now: self.clock.now(),
        };
        self.store.settle(settle).await?;
        self.bus.publish(Topic::Run(record.run)).await;
        Ok(())
    }
}

/// Leave to do one effect, once. Only the gate makes it.
///
/// Settling consumes it. Dropped unsettled, it is settled in the background as unknown,
/// with everything it had reserved counted as spent.
#[must_use = "an admitted action is settled after its effect"]
pub struct Admitted<K: Kind> {
    record: Option<Box<ActionRecord>>,
    shared: Arc<Shared>,
    kind: PhantomData<K>,
}

impl<K: Kind> Admitted<K> {
    pub(crate) fn new(record: ActionRecord, shared: Arc<Shared>) -> Self {
        debug_assert_eq!(record.action.kind, K::KIND);
        Self {
            record: Some(Box::new(record)),
            shared,
            kind: PhantomData,
        }
    }

    fn record(&self) -> &ActionRecord {
        self.record
            .as_ref()
            .expect("present until settled, and settling consumes")
    }

    /// The action to carry out: the one asked for, or as the approver edited it.
    pub fn action(&self) -> &Action {
        &self.record().action
    }

    /// Its id.
    pub fn id(&self) -> ActionId {
        self.record().id
    }

    /// What was reserved for it.
    pub fn reserved(&self) -> Amounts {
        self.record().reserved
    }

    /// Whether a person let it pass; otherwise the policy did.
    pub fn is_approved(&self) -> bool {
        self.record().approval.is_some()
    }

    /// The rule and reason that let it pass.
    pub fn why(&self) -> (&str, &str) {
        (&self.record().rule, &self.record().reason)
    }

    /// Writes down how the effect ended and what it cost.
    ///
    /// # Errors
    ///
    /// The store's; the effect has happened all the same and recovery marks it unknown.
    pub async fn settle(mut self, outcome: Outcome, spent: Amounts, details: Value) -> Result<(), StoreError> {
        match self.record.take() {
            Some(record) => self.shared.settle(&record, outcome, spent, details).await,
            None => Ok(()),
        }
    }
}

impl<K: Kind> Drop for Admitted<K> {
    fn drop(&mut self) {
        let (Some(record), Ok(runtime)) = (self.record.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let spent = if K::KIND == ActionKind::Model {
                record.reserved
            } else {
                Amounts::ZERO
            };
            let details = json!({ "abandoned": true });
            if let Err(error) = shared.settle(&record, Outcome::Unknown, spent, details).await {
                tracing::debug!(action = %record.id, %error, "an abandoned action stays in flight until recovery");
            }
        });
    }
}

/// An effector behind the gate: it opens to an admission of kind `K` and to nothing else.
pub struct Gated<K: Kind, T: ?Sized> {
    effector: Arc<T>,
    kind: PhantomData<K>,
}

impl<K: Kind, T: ?Sized> Gated<K, T> {
    /// Puts an effector behind the gate. The maker keeps no other handle to it.
    pub fn new(effector: Arc<T>) -> Self {
        Self {
            effector,
            kind: PhantomData,
        }
    }

    /// The effector, for as long as the admission lives.
    pub fn open<'a>(&'a self, _admitted: &'a Admitted<K>) -> &'a T {
        &self.effector
    }
}

impl Gated<crate::kind::Model, dyn ModelProvider> {
    /// Name and wires of the provider: facts, no effect.
    pub fn facts(&self) -> (&str, &[Wire]) {
        (self.effector.name(), self.effector.wires())
    }
}

impl<K: Kind, T: ?Sized> Clone for Gated<K, T> {
    fn clone(&self) -> Self {
        Self {
            effector: Arc::clone(&self.effector),
            kind: PhantomData,
        }
    }
}
