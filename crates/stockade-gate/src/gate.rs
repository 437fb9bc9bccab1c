//! Admit, wait, admit again.

use std::{sync::Arc, time::Duration};

use stockade_domain::{
    Action, ActionId, ActionRecord, Amounts, Approval, ApprovalId, ApprovalState, NewEvent, PolicyVerdict, Verdict,
    admission::{AdmitDecision, AdmitRequest},
};
use stockade_ports::{Bus, Clock, Store, StoreError, Topic};
use tokio::{sync::broadcast, time};

use crate::{
    Refusal, Scope,
    admitted::{Admitted, Shared},
    kind::Kind,
};

/// How often a waiting action looks at the store without a hint.
const POLL: Duration = Duration::from_millis(500);
/// How many unanswered looks in a row make a waiting action give up.
const PATIENCE: u32 = 60;

/// The chokepoint. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// The gate's answer to one question.
pub enum Admission<K: Kind> {
    /// The effect may happen, once.
    Admitted(Admitted<K>),
    /// A person is asked.
    Held(HeldAction),
}

/// An action that waits for a person.
#[derive(Debug, Clone)]
pub struct HeldAction {
    /// The action.
    pub id: ActionId,
    /// The question.
    pub approval: ApprovalId,
    /// Whether it waits because the agent repeats itself.
    pub stopped: bool,
}

impl Gate {
    /// A gate over a store. Without a store there is no gate.
    pub fn new(store: Arc<dyn Store>, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared { store, bus, clock }),
        }
    }

    /// Asks once, without waiting for a person.
    ///
    /// # Errors
    ///
    /// [`Refusal`], which has already been written down unless it is `Unrecorded`.
    pub async fn admit<K: Kind>(
        &self,
        scope: &Scope,
        action: Action,
        reserve: Amounts,
    ) -> Result<Admission<K>, Refusal> {
        let id = ActionId::from_uuid(self.shared.clock.uuid());
        self.ask(scope, id, action, reserve).await
    }

    /// Asks, and where a person must decide waits for the decision or its expiry.
    ///
    /// # Errors
    ///
    /// [`Refusal`], which has already been written down unless it is `Unrecorded`.
    pub async fn pass<K: Kind>(&self, scope: &Scope, action: Action, reserve: Amounts) -> Result<Admitted<K>, Refusal> {
        let id = ActionId::from_uuid(self.shared.clock.uuid());
        loop {
            let mut hints = self.shared.bus.subscribe();
            match self.ask(scope, id, action.clone(), reserve).await? {
                Admission::Admitted(admitted) => return Ok(admitted),
                Admission::Held(held) => {
                    self.decided(scope, held.approval, &mut hints).await?;
                }
            }
        }
    }

    /// Writes down that an action is refused for a reason its caller saw and the policy may not
    /// know of. Whatever the verdict says, it is a no.
    pub async fn refuse<K: Kind>(&self, scope: &Scope, action: Action, verdict: PolicyVerdict) -> Refusal {
        let id = ActionId::from_uuid(self.shared.clock.uuid());
        let verdict = PolicyVerdict {
            verdict: Verdict::Deny,
            ..verdict
        };
        match self.decide::<K>(scope, id, action, verdict, Amounts::ZERO).await {
            Err(refusal) => refusal,
            // No store lets through what is denied; were one to, nobody holds the admission.
            Ok(_) => Refusal::Unrecorded(StoreError::Corrupt("a refused action was admitted".to_owned())),
        }
    }

    /// Begins a turn of the agent, counted against the budget.
    ///
    /// # Errors
    ///
    /// [`Refusal::Exhausted`] when the limit is reached.
    pub async fn begin_turn(&self, scope: &Scope) -> Result<u64, Refusal> {
        let turn = self
            .shared
            .store
            .begin_turn(scope.run(), scope.lease(), self.shared.clock.now())
            .await?;
        self.shared.bus.publish(Topic::Run(scope.run())).await;
        turn.number.map_err(|exhausted| Refusal::Exhausted { exhausted })
    }

    /// Appends events that are no actions: messages, deltas, tool calls as shown.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn record(&self, scope: &Scope, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.shared
            .store
            .append(scope.run(), scope.lease(), events, self.shared.clock.now())
            .await?;
        self.shared.bus.publish(Topic::Run(scope.run())).await;
        Ok(())
    }

    /// The store behind the gate, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The bus, for listening.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.shared.bus
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    async fn ask<K: Kind>(
        &self,
        scope: &Scope,
        id: ActionId,
        action: Action,
        reserve: Amounts,
    ) -> Result<Admission<K>, Refusal> {
        let policy = scope.policy().evaluate(&action);
        self.decide(scope, id, action, policy, reserve).await
    }

    async fn decide<K: Kind>(
        &self,
        scope: &Scope,
        id: ActionId,
        action: Action,
        policy: PolicyVerdict,
        reserve: Amounts,
    ) -> Result<Admission<K>, Refusal> {
        let request = AdmitRequest {
            id,
            run: scope.run(),
            fence: scope.lease().fence,
            policy,
            policy_version: scope.policy().version(),
            reserve,
            approval_id: ApprovalId::from_uuid(self.shared.clock.uuid()),
            now: self.shared.clock.now(),
            trace: None,
            action: checked_kind::<K>(action),
        };
        let decision = self.shared.store.admit(request).await?;
        self.shared.bus.publish(Topic::Run(scope.run())).await;
        self.read(decision)
    }

    fn read<K: Kind>(&self, decision: AdmitDecision) -> Result<Admission<K>, Refusal> {
        let AdmitDecision { record, exhausted, .. } = decision;
        if let Some(exhausted) = exhausted {
            return Err(Refusal::Exhausted { exhausted });
        }
        match (record.verdict, record.approval) {
            (Verdict::Allow, _) => Ok(Admission::Admitted(Admitted::new(record, Arc::clone(&self.shared)))),
            (Verdict::Hold | Verdict::Stop, Some(approval)) => Ok(Admission::Held(HeldAction {
                id: record.id,
                approval,
                stopped: record.verdict == Verdict::Stop,
            })),
            // A hold without a question to a person could never end; it is a no.
            _ => Err(denied(record)),
        }
    }

    /// Waits until an approval is no longer pending.
    async fn decided(
        &self,
        scope: &Scope,
        id: ApprovalId,
        hints: &mut broadcast::Receiver<Topic>,
    ) -> Result<Approval, StoreError> {
        let mut unanswered = 0;
        loop {
            match self.shared.store.approval(None, id).await {
                Ok(approval) if approval.state != ApprovalState::Pending => return Ok(approval),
                Ok(approval) => {
                    unanswered = 0;
                    let now = self.shared.clock.now();
                    if now >= approval.expires_at {
                        self.shared.store.expire(now).await?;
                        self.shared.bus.publish(Topic::Run(scope.run())).await;
                        continue;
                    }
                }
                Err(error @ StoreError::Unavailable(_)) => {
                    unanswered += 1;
                    if unanswered >= PATIENCE {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            self.hint(scope, hints).await;
        }
    }

    /// Waits for a hint about the run, or for a while.
    async fn hint(&self, scope: &Scope, hints: &mut broadcast::Receiver<Topic>) {
        let wanted = async {
            loop {
                match hints.recv().await {
                    Ok(topic) if topic == Topic::Run(scope.run()) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                }
            }
        };
        // Passing time is as good as a hint: the store is asked again either way.
        let _ = time::timeout(POLL, wanted).await;
    }
}

fn denied(record: ActionRecord) -> Refusal {
    Refusal::Denied {
        record: Box::new(record),
    }
}

/// The kind in the type is the kind on the record, whatever the caller wrote.
fn checked_kind<K: Kind>(action: Action) -> Action {
    Action {
        kind: K::KIND,
        ..action
    }
}
