//! Revocations: hosts that an operator takes away from the runs of an environment at once.

use axum::extract::State;
use http::StatusCode;
use stockade_api::{
    Problem, ProblemCode,
    v1::{CreateRevocation, Page, Revocation},
};
use stockade_domain::{RevocationId, RunState, TeamId};
use stockade_policy::Revoked;
use stockade_ports::Topic;

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::{Id, Json as JsonBody, NoIdempotencyKey, Query, Segment},
    error::{Answer, not_found},
    freeze,
};

/// Runs looked at for an environment that is no longer configured.
const RUNS: u32 = 1000;

/// An environment that is configured, or that a run which has not ended was frozen with.
async fn known(app: &App, team: TeamId, name: &str) -> Answer<()> {
    let Err(unknown) = freeze::environment(&app.catalog, Some(name)) else {
        return Ok(());
    };
    let living = [
        RunState::Queued,
        RunState::Provisioning,
        RunState::Running,
        RunState::Waiting,
    ];
    let runs = app.store.runs(Some(team), &living, None, RUNS).await?;
    match runs.iter().any(|run| run.spec.environment.name == name) {
        true => Ok(()),
        false => Err(unknown),
    }
}

/// Takes hosts away. Who did it is kept.
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    query: Query,
    _: NoIdempotencyKey,
    JsonBody(wanted): JsonBody<CreateRevocation>,
) -> Answer<(StatusCode, Json<Revocation>)> {
    query.only(&[])?;
    known(&app, caller.team, &name).await?;
    let hosts = Revoked::parse(&wanted.hosts).map_err(|error| {
        Problem::new(
            ProblemCode::InvalidBody,
            format!("hosts '{}': {error}", wanted.hosts.escape_default()),
        )
        .with_hint("name a host, '*.suffix' for every name below one, an address, or '*' for every host")
        .with("field", "hosts")
    })?;
    if !wanted.reason.is_empty() {
        freeze::text(&app, "reason", &wanted.reason)?;
    }
    let revocation = stockade_domain::Revocation {
        id: RevocationId::from_uuid(app.clock.uuid()),
        team: caller.team,
        environment: name,
        hosts: hosts.to_string(),
        reason: wanted.reason,
        by: caller.name,
        created_at: app.clock.now(),
        lifted_by: None,
        lifted_at: None,
    };
    app.store.put_revocation(revocation.clone()).await?;
    app.bus.publish(Topic::Revocations).await;
    tracing::warn!(id = %revocation.id, environment = revocation.environment, hosts = revocation.hosts, by = revocation.by, "hosts were revoked");
    Ok((StatusCode::CREATED, axum::Json(revocation.into())))
}

/// Revocations of an environment, newest first; with `?all=true` also the lifted ones.
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    query: Query,
) -> Answer<Json<Page<Revocation>>> {
    let all = query.only(&["all"])?.get::<bool>("all")?.unwrap_or(false);
    let list = app.store.revocations(Some(caller.team), Some(&name), !all).await?;
    if list.is_empty() {
        known(&app, caller.team, &name).await?;
    }
    Ok(axum::Json(Page::whole(
        list.into_iter().map(Revocation::from).collect(),
    )))
}

/// Lifts a revocation; it stays in the list of all, with who did it.
pub(crate) async fn lift(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Id(id): Id<RevocationId>,
) -> Answer<Json<Revocation>> {
    let of_name = app.store.revocations(Some(caller.team), Some(&name), false).await?;
    if !of_name.iter().any(|revocation| revocation.id == id) {
        return Err(not_found("revocation", &id.to_string()));
    }
    let now = app.clock.now();
    let lifted = app.store.lift_revocation(caller.team, id, caller.name, now).await?;
    app.bus.publish(Topic::Revocations).await;
    tracing::warn!(id = %lifted.id, environment = lifted.environment, hosts = lifted.hosts, by = lifted.lifted_by, "a revocation was lifted");
    Ok(axum::Json(lifted.into()))
}
