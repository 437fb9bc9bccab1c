//! Approvals: what people are asked, and what they answer.

use axum::extract::State;
use stockade_api::v1::{DecideApproval, Page};
use stockade_domain::{Approval, ApprovalDecision, ApprovalId, ApprovalState};

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::{Id, Json as JsonBody, Query},
    error::Answer,
    freeze, runs,
    tasks::PAGE,
};

const STATES: [ApprovalState; 5] = [
    ApprovalState::Pending,
    ApprovalState::Approved,
    ApprovalState::Rejected,
    ApprovalState::Expired,
    ApprovalState::Cancelled,
];

fn state(text: &str) -> Result<ApprovalState, String> {
    let found = STATES.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| {
        let known: Vec<_> = STATES.iter().map(|state| state.as_str()).collect();
        format!("'{text}' is no state of an approval; known are: {}", known.join(", "))
    })
}

/// The newest approvals. The store keeps no cursor for them, so `next` is always absent.
pub(crate) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Answer<Json<Page<Approval>>> {
    let query = query.only(&["run", "state", "limit"])?;
    let limit = query.limit(PAGE.0, PAGE.1)?;
    let (run, state) = (query.get("run")?, query.with("state", state)?);
    let found = app.store.approvals(Some(caller.team), run, state, limit).await?;
    Ok(axum::Json(Page::whole(found)))
}

pub(crate) async fn show(State(app): State<App>, caller: Caller, Id(id): Id<ApprovalId>) -> Answer<Json<Approval>> {
    Ok(axum::Json(app.store.approval(Some(caller.team), id).await?))
}

/// Answers an approval in the name of the caller's token; the first answer stands.
pub(crate) async fn decide(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ApprovalId>,
    JsonBody(answer): JsonBody<DecideApproval>,
) -> Answer<Json<Approval>> {
    if let Some(reason) = &answer.reason {
        freeze::text(&app, "reason", reason)?;
    }
    let decision = ApprovalDecision {
        decision: answer.decision,
        by: caller.name,
        reason: answer.reason,
        edited_args: answer.edited_args,
    };
    let decided = app.store.decide(caller.team, id, decision, app.clock.now()).await?;
    runs::changed(&app, decided.run).await;
    Ok(axum::Json(decided))
}
