//! Runs: look, speak, end.

use axum::extract::State;
use http::StatusCode;
use stockade_api::v1::{CancelRun, Message, Page, Run, RunSummary, SendMessage};
use stockade_domain::{RunId, RunInput, RunState, machine::Cancellation};
use stockade_ports::Topic;

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::{Id, Json as JsonBody, NoIdempotencyKey, OptionalJson, Query},
    error::Answer,
    freeze,
    tasks::{PAGE, page},
};

const STATES: [RunState; 7] = [
    RunState::Queued,
    RunState::Provisioning,
    RunState::Running,
    RunState::Waiting,
    RunState::Completed,
    RunState::Failed,
    RunState::Cancelled,
];

fn states(text: &str) -> Result<Vec<RunState>, String> {
    let one = |name: &str| {
        let found = STATES.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| {
            let known: Vec<_> = STATES.iter().map(|state| state.as_str()).collect();
            format!("'{name}' is no state of a run; known are: {}", known.join(", "))
        })
    };
    text.split(',').map(one).collect()
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Answer<Json<Page<RunSummary>>> {
    let query = query.only(&["state", "cursor", "limit"])?;
    let limit = query.limit(PAGE.0, PAGE.1)?;
    let states = query.with("state", states)?.unwrap_or_default();
    let before = query.get("cursor")?;
    let runs = app.store.runs(Some(caller.team), &states, before, limit + 1).await?;
    Ok(axum::Json(page(runs, limit, |run| run.id.to_string())))
}

pub(crate) async fn show(State(app): State<App>, caller: Caller, Id(id): Id<RunId>) -> Answer<Json<Run>> {
    Ok(axum::Json(app.store.run(Some(caller.team), id).await?.into()))
}

/// Says that something about a run changed: to its listeners and to the engine.
pub(crate) async fn changed(app: &App, run: RunId) {
    app.bus.publish(Topic::Run(run)).await;
    app.engine.wake(run).await;
}

/// Ends a run: at once where nobody works on it (200), else by asking the worker (202).
pub(crate) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<RunId>,
    OptionalJson(wish): OptionalJson<CancelRun>,
) -> Answer<(StatusCode, Json<Run>)> {
    if let Some(reason) = &wish.reason {
        freeze::text(&app, "reason", reason)?;
    }
    // The step itself is not scoped to a team, so this look-up is what keeps others out.
    app.store.run(Some(caller.team), id).await?;
    let cancellation = Cancellation {
        by: caller.name,
        reason: wish.reason,
    };
    let input = RunInput::Cancel(cancellation);
    let (run, _) = app.store.step(id, None, input, app.clock.now()).await?;
    changed(&app, id).await;
    let status = if run.state().is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, axum::Json(run.into())))
}

pub(crate) async fn send(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<RunId>,
    _: NoIdempotencyKey,
    JsonBody(message): JsonBody<SendMessage>,
) -> Answer<(StatusCode, Json<Message>)> {
    freeze::text(&app, "text", &message.text)?;
    let kept = app
        .store
        .push_message(
            caller.team,
            id,
            caller.name,
            message.text,
            message.steer,
            app.clock.now(),
        )
        .await?;
    changed(&app, id).await;
    let told = Message {
        seq: kept.seq,
        by: kept.by,
        text: kept.text,
        steer: kept.steer,
    };
    Ok((StatusCode::CREATED, axum::Json(told)))
}
