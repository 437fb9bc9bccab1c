//! Admission: the one decision about an action, taken by a store inside the transaction
//! that writes it down.
//!
//! A run may act while its agent works or waits. While its sandbox is prepared it may use a credential, for
//! the repository: nothing else is wanted from outside then.
//!
//! The order matters and is part of the contract: a run that may not act, another policy,
//! the policy's refusal, a stored decision of a person, a loop, the policy's question, the
//! budget. A stored approval is consumed only when the budget also says yes.

use serde_json::{Value, json};

use crate::{
    Action, ActionId, ActionKind, ActionRecord, Amounts, Approval, ApprovalId, ApprovalState, Budget, BudgetExhausted,
    Digest, EventType, Machine, NewEvent, Outcome, PolicyVerdict, RunId, RunInput, Step, Timestamp, Verdict, machine,
    repeat,
};

/// An action on its way through the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmitRequest {
    /// Names the action; asking again after a hold uses the same id.
    pub id: ActionId,
    /// The run.
    pub run: RunId,
    /// The worker's fencing token; an old one is refused by the store.
    pub fence: u64,
    /// The exact action.
    pub action: Action,
    /// What the policy says.
    pub policy: PolicyVerdict,
    /// The policy that said it.
    pub policy_version: Digest,
    /// What to reserve from the budget.
    pub reserve: Amounts,
    /// Names the approval, should one be opened.
    pub approval_id: ApprovalId,
    /// Now, from the clock of the installation.
    pub now: Timestamp,
    /// W3C trace id, where one is known.
    pub trace: Option<String>,
}

/// What the store knows, read inside the transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmitFacts {
    /// The run's machine.
    pub machine: Machine,
    /// The run's budget.
    pub budget: Budget,
    /// The policy the run was created with.
    pub policy_version: Digest,
    /// The same tool with the same input so often asks a person.
    pub repeat_limit: u32,
    /// Seconds an approval stays open.
    pub approval_timeout_seconds: u64,
    /// The run's approvals with the same asked digest and no `used_at`, oldest first.
    pub approvals: Vec<Approval>,
    /// The run's other tool and permission actions that were admitted or denied, oldest first.
    pub history: Vec<PastAction>,
}

/// An earlier action, as far as loop detection looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastAction {
    /// Digest as asked.
    pub digest: Digest,
    /// Whether a person approved it as a repetition, which starts the count anew.
    pub approved_repetition: bool,
}

/// What the store writes, all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmitDecision {
    /// The action's row, inserted or replaced by id.
    pub record: ActionRecord,
    /// The budget after it.
    pub budget: Budget,
    /// An approval to insert or replace by id.
    pub approval: Option<Approval>,
    /// The run's step, when the verdict moves it.
    pub step: Option<Step>,
    /// Events to append, in this order, before those of `step`.
    pub events: Vec<NewEvent>,
    /// Set when the budget refused.
    pub exhausted: Option<BudgetExhausted>,
}

/// Decides about an action.
pub fn decide(request: &AdmitRequest, facts: &AdmitFacts) -> AdmitDecision {
    let draft = Draft { request, facts };
    let hosts_own = facts.machine.is_preparing() && request.action.kind == ActionKind::Credential;
    if !facts.machine.may_act() && !hosts_own {
        let state = facts.machine.state.as_str();
        return draft.deny(
            "stockade.run_state",
            &format!("the run is {state} and may not act"),
            None,
        );
    }
    if request.policy_version != facts.policy_version {
        return draft.deny(
            "stockade.policy_version",
            "the policy is not the one the run was created with",
            None,
        );
    }
    if request.policy.verdict == Verdict::Deny {
        return draft.deny(&request.policy.rule, &request.policy.reason, None);
    }
    if hosts_own && request.policy.verdict != Verdict::Allow {
        let reason = "a rule asks a person about this, and nobody can be asked before the agent has begun";
        return draft.deny("stockade.run_state", reason, None);
    }
    if let Some(approval) = facts
        .approvals
        .iter()
        .find(|a| a.policy_version == facts.policy_version)
    {
        return draft.answered(approval);
    }
    if repeat::is_watched(request.action.kind) {
        let digest = request.action.digest();
        let since = facts
            .history
            .iter()
            .rposition(|past| past.approved_repetition)
            .map_or(0, |at| at + 1);
        let history: Vec<Digest> = facts.history[since..].iter().map(|past| past.digest).collect();
        let times = repeat::repetitions(&history, digest);
        if times >= facts.repeat_limit {
            let reason = format!(
                "the agent asks for the same {} {times} times without progress",
                request.action.kind.as_str()
            );
            return draft.hold(Verdict::Stop, "stockade.repetition", &reason);
        }
    }
    if request.policy.verdict == Verdict::Hold {
        return draft.hold(Verdict::Hold, &request.policy.rule, &request.policy.reason);
    }
    draft.allow(&request.policy.rule, &request.policy.reason, None)
}

/// Settles an admitted action: the row, the budget and the event to write.
pub fn settle(
    record: &ActionRecord,
    mut budget: Budget,
    outcome: Outcome,
    spent: Amounts,
    details: Value,
    now: Timestamp,
) -> (ActionRecord, Budget, NewEvent) {
    budget.settle(record.reserved, spent);
    let kind = match record.action.kind {
        ActionKind::Model => EventType::ModelCall,
        _ => EventType::ActionSettled,
    };
    let data = json!({
        "action": record.id, "kind": record.action.kind, "operation": record.action.operation,
        "target": record.action.target, "outcome": outcome, "spent": spent, "details": details,
    });
    let settled = ActionRecord {
        outcome: Some(outcome),
        spent,
        settled_at: Some(now),
        ..record.clone()
    };
    (settled, budget, NewEvent::new(kind, data))
}

/// The answer to an agent that wants to begin a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Its number: 1, 2, 3 …; or the limit that is reached.
    pub number: Result<u64, BudgetExhausted>,
    /// The budget after it.
    pub budget: Budget,
    /// The event to append.
    pub event: NewEvent,
}

/// Counts a turn against the budget.
pub fn begin_turn(mut budget: Budget) -> Turn {
    let one = Amounts {
        turns: 1,
        ..Amounts::ZERO
    };
    match budget.reserve(one) {
        Ok(()) => {
            budget.settle(one, one);
            let number = budget.used.turns;
            Turn {
                number: Ok(number),
                budget,
                event: NewEvent::new(EventType::TurnStarted, json!({ "turn": number })),
            }
        }
        Err(exhausted) => {
            let event = NewEvent::new(EventType::BudgetExhausted, json!(exhausted));
            Turn {
                number: Err(exhausted),
                budget,
                event,
            }
        }
    }
}

struct Draft<'a> {
    request: &'a AdmitRequest,
    facts: &'a AdmitFacts,
}

impl Draft<'_> {
    fn record(&self, verdict: Verdict, rule: &str, reason: &str, approval: Option<ApprovalId>) -> ActionRecord {
        ActionRecord {
            id: self.request.id,
            run: self.request.run,
            attempt: self.facts.machine.attempt,
            action: self.request.action.clone(),
            digest: self.request.action.digest(),
            verdict,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            approval,
            reserved: Amounts::ZERO,
            outcome: None,
            spent: Amounts::ZERO,
            asked_at: self.request.now,
            settled_at: None,
        }
    }

    fn data(record: &ActionRecord) -> Value {
        json!({
            "action": record.id, "kind": record.action.kind, "operation": record.action.operation,
            "target": record.action.target, "args": record.action.args, "digest": record.digest,
            "verdict": record.verdict, "rule": record.rule, "reason": record.reason,
            "approval": record.approval,
        })
    }

    fn decision(&self, record: ActionRecord, kind: EventType) -> AdmitDecision {
        let events = vec![NewEvent::new(kind, Self::data(&record))];
        AdmitDecision {
            record,
            budget: self.facts.budget,
            approval: None,
            step: None,
            events,
            exhausted: None,
        }
    }

    fn deny(&self, rule: &str, reason: &str, used: Option<&Approval>) -> AdmitDecision {
        let kind = if self.request.action.kind == ActionKind::Egress {
            EventType::EgressDenied
        } else {
            EventType::ActionDenied
        };
        let record = self.record(Verdict::Deny, rule, reason, used.map(|a| a.id));
        let approval = used.map(|a| Approval {
            used_at: Some(self.request.now),
            ..a.clone()
        });
        AdmitDecision {
            approval,
            ..self.decision(record, kind)
        }
    }

    fn allow(&self, rule: &str, reason: &str, used: Option<&Approval>) -> AdmitDecision {
        let mut budget = self.facts.budget;
        if let Err(exhausted) = budget.reserve(self.request.reserve) {
            let mut decision = self.deny("stockade.budget", &exhausted.to_string(), None);
            decision
                .events
                .push(NewEvent::new(EventType::BudgetExhausted, json!(exhausted)));
            return AdmitDecision {
                exhausted: Some(exhausted),
                ..decision
            };
        }
        let kind = if self.request.action.kind == ActionKind::Egress {
            EventType::EgressAllowed
        } else {
            EventType::ActionAdmitted
        };
        let mut record = self.record(Verdict::Allow, rule, reason, used.map(|a| a.id));
        record.reserved = self.request.reserve;
        if let Some(edited) = used.and_then(|a| a.edited.clone()) {
            record.digest = edited.digest();
            record.action = edited;
        }
        let approval = used.map(|a| Approval {
            used_at: Some(self.request.now),
            ..a.clone()
        });
        AdmitDecision {
            budget,
            approval,
            ..self.decision(record, kind)
        }
    }

    /// A person was already asked about exactly this action.
    fn answered(&self, approval: &Approval) -> AdmitDecision {
        let by = approval.decided_by.as_deref().unwrap_or("nobody");
        let words = approval
            .decision_reason
            .as_deref()
            .map(|r| format!(": {r}"))
            .unwrap_or_default();
        match approval.state {
            ApprovalState::Pending if self.request.now < approval.expires_at => self.join(approval),
            ApprovalState::Approved if self.request.now < approval.expires_at => {
                self.allow(&approval.rule, &format!("approved by {by}{words}"), Some(approval))
            }
            ApprovalState::Approved => self.deny(&approval.rule, "approved, but used too late", Some(approval)),
            ApprovalState::Rejected => self.deny(&approval.rule, &format!("rejected by {by}{words}"), Some(approval)),
            // A cancelled question belongs to an agent that has ended; treat it as no answer.
            ApprovalState::Pending | ApprovalState::Expired | ApprovalState::Cancelled => {
                self.deny(&approval.rule, "nobody answered in time", Some(approval))
            }
        }
    }

    /// The same action is already waiting: wait with it instead of asking twice.
    fn join(&self, approval: &Approval) -> AdmitDecision {
        let verdict = if approval.repetition {
            Verdict::Stop
        } else {
            Verdict::Hold
        };
        let record = self.record(verdict, &approval.rule, &approval.reason, Some(approval.id));
        let step = machine::step(&self.facts.machine, RunInput::ApprovalOpened(approval.id)).ok();
        AdmitDecision {
            step,
            ..self.decision(record, EventType::ActionHeld)
        }
    }

    fn hold(&self, verdict: Verdict, rule: &str, reason: &str) -> AdmitDecision {
        let now = self.request.now;
        let wait =
            jiff::SignedDuration::from_secs(i64::try_from(self.facts.approval_timeout_seconds).unwrap_or(i64::MAX));
        // A deadline past the end of time is one that never comes; refuse such a timeout instead of panicking.
        let expires_at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let approval = Approval {
            id: self.request.approval_id,
            run: self.request.run,
            action_id: self.request.id,
            action: self.request.action.clone(),
            digest: self.request.action.digest(),
            policy_version: self.facts.policy_version,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            repetition: verdict == Verdict::Stop,
            state: ApprovalState::Pending,
            requested_at: now,
            expires_at,
            decided_at: None,
            decided_by: None,
            decision_reason: None,
            edited: None,
            used_at: None,
        };
        let record = self.record(verdict, rule, reason, Some(approval.id));
        let kind = if verdict == Verdict::Stop {
            EventType::ActionStopped
        } else {
            EventType::ActionHeld
        };
        let mut decision = self.decision(record, kind);
        decision.events.push(NewEvent::new(
            EventType::ApprovalRequested,
            json!({
                "approval": approval.id, "action": approval.action_id, "kind": approval.action.kind,
                "operation": approval.action.operation, "target": approval.action.target, "digest": approval.digest,
                "rule": approval.rule, "reason": approval.reason, "expires_at": approval.expires_at,
            }),
        ));
        decision.step = machine::step(&self.facts.machine, RunInput::ApprovalOpened(approval.id)).ok();
        decision.approval = Some(approval);
        decision
    }
}

/// Whether an action counts for loop detection later.
pub fn counts_as_history(record: &ActionRecord) -> bool {
    repeat::is_watched(record.action.kind) && matches!(record.verdict, Verdict::Allow | Verdict::Deny)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
