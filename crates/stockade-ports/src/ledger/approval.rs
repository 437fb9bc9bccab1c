//! Approvals: answers, and silence.

use serde_json::json;
use stockade_domain::{
    Approval, ApprovalDecision, ApprovalState, EventType, NewEvent, RunInput, Timestamp, approval::DecisionError,
    machine,
};

use super::{Change, Held, OpenWork};
use crate::StoreError;

/// Answers an approval of a run.
///
/// # Errors
///
/// [`StoreError::Decision`] when it cannot be answered (so).
pub fn decide(
    held: Held,
    approval: &Approval,
    decision: ApprovalDecision,
    now: Timestamp,
) -> Result<(Change, Approval), StoreError> {
    // A run that ended has closed its questions; should one be left, it is closed all the same.
    if held.run.state().is_terminal() && approval.state == ApprovalState::Pending {
        let (id, state) = (approval.id, ApprovalState::Cancelled);
        return Err(DecisionError::Closed { id, state }.into());
    }
    let verdict = decision.decision;
    let decided = approval.decide(decision, now)?;
    let data = json!({
        "approval": decided.id, "action": decided.action_id, "decision": verdict, "by": decided.decided_by,
        "reason": decided.decision_reason, "edited": decided.edited.as_ref().map(|action| &action.args),
    });
    let mut change = Change::of(held);
    change.event(NewEvent::new(EventType::ApprovalDecided, data), now, None);
    close(&mut change, &decided, now);
    Ok((change, decided))
}

/// Closes a due approval of a run; `None` when it is not due.
pub fn expire(held: Held, approval: &Approval, now: Timestamp) -> Option<(Change, Approval)> {
    if held.run.state().is_terminal() {
        return None;
    }
    let expired = approval.expire(now)?;
    let mut change = Change::of(held);
    change.expired(&expired, "nobody answered in time", now);
    close(&mut change, &expired, now);
    Some((change, expired))
}

/// The run goes on, if this was what it waited for.
fn close(change: &mut Change, closed: &Approval, now: Timestamp) {
    change.approvals.push(closed.clone());
    // A machine that no longer lists the approval has nothing to hear about it.
    if let Ok(step) = machine::step(&change.held.run.machine, RunInput::ApprovalClosed(closed.id)) {
        change.step(&step, OpenWork::default(), now, None);
    }
}
