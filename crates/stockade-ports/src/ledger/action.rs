//! Actions: admitting and settling them.

use stockade_domain::{
    ActionRecord, Approval, Verdict,
    admission::{self, AdmitDecision, AdmitFacts, AdmitRequest, PastAction},
    machine::IllegalInput,
};

use super::{ActionRow, Change, Held, OpenWork};
use crate::{Lease, Settle, StoreError};

/// What a store knows about an action that is being asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// The row with the request's id, if there is one, of whichever run.
    pub earlier: Option<ActionRow>,
    /// The approval with the request's approval id, if there is one, of whichever run.
    pub named: Option<Approval>,
    /// The run's approvals with the digest of the request's action that are pending,
    /// approved, rejected or expired and were never used, oldest first.
    pub approvals: Vec<Approval>,
    /// The run's other actions that count for loop detection, in the order they were asked.
    pub history: Vec<PastAction>,
}

/// Decides about an action, and works out everything that has to be written with it.
///
/// # Errors
///
/// [`StoreError::Fenced`] for a stale lease; [`StoreError::Illegal`] when the run has ended,
/// and when the id was answered before: an action is admitted once, so whoever lost the
/// answer cannot ask again and run the effect twice. Nor may a new question take the place
/// of an old one by taking its id.
pub fn admit(held: Held, asked: Asked, request: &AdmitRequest) -> Result<(Change, AdmitDecision), StoreError> {
    held.living("an action")?;
    held.holds(Lease { fence: request.fence })?;
    let state = held.run.state();
    if let Some(earlier) = &asked.earlier {
        check_again(earlier, request).map_err(|input| IllegalInput { state, input })?;
    }
    let limits = held.run.spec.limits;
    let facts = AdmitFacts {
        machine: held.run.machine.clone(),
        budget: held.run.budget,
        policy_version: held.run.spec.policy_version,
        repeat_limit: limits.repeat_limit,
        approval_timeout_seconds: limits.approval_timeout_seconds,
        approvals: asked.approvals,
        history: asked.history,
    };
    let decision = admission::decide(request, &facts);
    let opens = decision.record.verdict != Verdict::Allow
        && decision
            .approval
            .as_ref()
            .is_some_and(|a| a.action_id == request.id && a.used_at.is_none());
    if opens && asked.named.is_some() {
        let input = "a new approval under a known id";
        return Err(IllegalInput { state, input }.into());
    }
    Ok((written(held, &decision, request), decision))
}

/// Asking again after a hold uses the same id; anything else with a known id is a mistake.
fn check_again(earlier: &ActionRow, request: &AdmitRequest) -> Result<(), &'static str> {
    let held = matches!(earlier.record.verdict, Verdict::Hold | Verdict::Stop);
    let same = earlier.record.run == request.run && earlier.past.digest == request.action.digest();
    match (same, held) {
        (true, true) => Ok(()),
        (true, false) => Err("an action that was answered before"),
        (false, _) => Err("another action under a known id"),
    }
}

fn written(mut held: Held, decision: &AdmitDecision, request: &AdmitRequest) -> Change {
    held.run.budget = decision.budget;
    let mut change = Change::of(held);
    let trace = request.trace.as_deref();
    let approved = decision.record.verdict == Verdict::Allow;
    change.actions.push(ActionRow {
        record: decision.record.clone(),
        past: PastAction {
            // As asked: a person may have edited what the record executes.
            digest: request.action.digest(),
            approved_repetition: approved && decision.approval.as_ref().is_some_and(|a| a.repetition),
        },
    });
    change.approvals.extend(decision.approval.clone());
    for event in &decision.events {
        change.event(event.clone(), request.now, trace);
    }
    if let Some(step) = &decision.step {
        change.step(step, OpenWork::default(), request.now, trace);
    }
    change
}

/// Settles an admitted action; `row` is the one with the request's id.
///
/// # Errors
///
/// [`StoreError::Illegal`] when it was never admitted, is settled already or its run has
/// ended; [`StoreError::NotFound`] when it is another run's.
pub fn settle(held: Held, row: ActionRow, settle: Settle) -> Result<(Change, ActionRecord), StoreError> {
    if row.record.run != settle.run {
        return Err(StoreError::NotFound {
            what: "action",
            id: settle.id.to_string(),
        });
    }
    held.living("the end of an action")?;
    if !row.record.in_flight() {
        let (state, input) = (held.run.state(), "the end of an action that is not under way");
        return Err(IllegalInput { state, input }.into());
    }
    let budget = held.run.budget;
    let (record, budget, event) = admission::settle(
        &row.record,
        budget,
        settle.outcome,
        settle.spent,
        settle.details,
        settle.now,
    );
    let mut change = Change::of(held);
    change.held.run.budget = budget;
    let past = row.past;
    let settled = record.clone();
    change.actions.push(ActionRow { record, past });
    change.event(event, settle.now, None);
    Ok((change, settled))
}
