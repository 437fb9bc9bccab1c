//! One boundary being served for one run.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use stockade_domain::{Action, Amounts, Outcome, PolicyVerdict, Verdict};
use stockade_gate::{Gate, Refusal, Scope, kind};
use stockade_policy::{Host, Policy};
use stockade_ports::{Internal, RunIdentity, Tally};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GuardConfig, broker::Broker, credentials::RunCredentials, dial::Dial, git::GitSession, inspection::Inspector,
    lookup::Lookup, origin::Origin, passage::Passage, pins::Pins, refusals::Refusals, tls::Tls,
};

/// What every connection and question of one run shares.
pub(crate) struct Session {
    pub(crate) gate: Gate,
    pub(crate) scope: Scope,
    pub(crate) internal: Arc<dyn Internal>,
    pub(crate) origin: Arc<dyn Origin>,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) lookup: Lookup,
    pub(crate) config: GuardConfig,
    pub(crate) pins: Pins,
    pub(crate) refusals: Refusals,
    pub(crate) inspector: Arc<dyn Inspector>,
    pub(crate) broker: Option<Arc<dyn Broker>>,
    /// What the environment puts into requests.
    pub(crate) credentials: Option<Arc<RunCredentials>>,
    /// Git as it passes; nothing of it does before this is set.
    pub(crate) git: OnceLock<Arc<GitSession>>,
    /// What connections are opened with; nothing where no rule needs it.
    pub(crate) tls: Option<Tls>,
    pub(crate) trial: Trial,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) waiting: Arc<Semaphore>,
    /// Cancelled when the session ends.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the boundary is not served any more though the session goes on.
    pub(crate) lost: CancellationToken,
    /// Every task of the session, so that closing can wait for all of them.
    pub(crate) tasks: TaskTracker,
}

/// The time before the agent: everything is judged, counted and refused, nothing written down.
#[derive(Debug)]
pub(crate) struct Trial {
    over: AtomicBool,
    tally: Mutex<Tally>,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            tally: Mutex::new(Tally::default()),
        }
    }
}

impl Trial {
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what would have been let through, and refuses it.
    pub(crate) fn would_allow(&self, action: &Action) -> Denial {
        self.lock().allowed.push(host_of(action));
        Denial {
            rule: "stockade.trial".to_owned(),
            reason: "the sandbox is still being measured".to_owned(),
        }
    }
}

fn host_of(action: &Action) -> String {
    action.args["host"].as_str().unwrap_or(&action.target).to_owned()
}

/// Why something was refused, for the answer to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) rule: String,
    pub(crate) reason: String,
}

impl From<&Refusal> for Denial {
    fn from(refusal: &Refusal) -> Self {
        let reason = match refusal {
            Refusal::Denied { record } => record.reason.clone(),
            other => other.to_string(),
        };
        Self {
            rule: refusal.rule().to_owned(),
            reason,
        }
    }
}

impl Session {
    pub(crate) fn policy(&self) -> &Policy {
        self.scope.policy()
    }

    pub(crate) fn identity(&self) -> RunIdentity {
        RunIdentity {
            run: self.scope.run(),
            lease: self.scope.lease(),
        }
    }

    pub(crate) fn passage(&self) -> Passage {
        Passage {
            gate: self.gate.clone(),
            scope: self.scope.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    /// The internal name a host is, if it is one.
    pub(crate) fn internal_name(&self, host: &str) -> Option<&'static str> {
        self.internal.hosts().iter().copied().find(|name| *name == host)
    }

    /// The rule that needs requests to this destination to be read, if one does.
    pub(crate) fn needs_inspection(&self, host: &Host, port: u16) -> Option<String> {
        let rule = self.inspector.needs(self.policy(), host, port);
        let bound = || self.credentials.as_ref()?.bound_to(host, port);
        rule.or_else(|| bound().map(|secret| format!("credential '{secret}'")))
    }

    /// Has the gate write down that an action is refused, and says why it is.
    pub(crate) async fn refuse(&self, action: Action) -> Denial {
        let verdict = self.policy().evaluate(&action);
        self.refuse_as(action, verdict).await
    }

    /// The same for what the Guard itself saw a reason to refuse.
    pub(crate) async fn refuse_because(&self, action: Action, rule: &str, reason: &str) -> Denial {
        let verdict = PolicyVerdict {
            verdict: Verdict::Deny,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
        };
        self.refuse_as(action, verdict).await
    }

    async fn refuse_as(&self, action: Action, mut verdict: PolicyVerdict) -> Denial {
        if verdict.verdict != Verdict::Deny {
            // The policy allows what the Guard saw a reason to refuse. Nothing is done with it.
            verdict = PolicyVerdict {
                verdict: Verdict::Deny,
                rule: "stockade.refused".to_owned(),
                reason: "refused by the Guard".to_owned(),
            };
        }
        let denial = Denial {
            rule: verdict.rule.clone(),
            reason: verdict.reason.clone(),
        };
        if self.trial.is_on() {
            self.trial.lock().denied.push(host_of(&action));
            return denial;
        }
        if let Some(counted) = self.refusals.count(&action, &verdict) {
            self.write_down(&action, counted, verdict).await;
        }
        denial
    }

    async fn write_down(&self, action: &Action, counted: Action, verdict: PolicyVerdict) {
        let refused = self
            .gate
            .refuse::<kind::Egress>(&self.scope, counted, verdict.clone())
            .await;
        if let Refusal::Unrecorded(error) = refused {
            tracing::warn!(run = %self.scope.run(), target = %action.target, %error, "a refusal was not written down");
            self.refusals.unrecorded(action, &verdict);
        }
    }

    /// Writes down what was counted and not recorded.
    pub(crate) async fn report(&self) {
        for (action, verdict) in self.refusals.rest() {
            self.write_down(&action.clone(), action, verdict).await;
        }
    }

    /// Whether the policy refuses an action outright, without asking anybody.
    pub(crate) fn is_denied(&self, action: &Action) -> bool {
        self.policy().evaluate(action).verdict == Verdict::Deny
    }
}

/// Settles an admitted connection; a store that does not answer leaves it to recovery.
pub(crate) async fn settle<K: kind::Kind>(
    admitted: stockade_gate::Admitted<K>,
    outcome: Outcome,
    details: serde_json::Value,
) {
    let id = admitted.id();
    if let Err(error) = admitted.settle(outcome, Amounts::ZERO, details).await {
        tracing::warn!(action = %id, %error, "a connection could not be settled; recovery marks it unknown");
    }
}
