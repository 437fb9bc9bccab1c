//! Secrets of the caller's team. Values go in and never come back.

use std::collections::BTreeSet;

use axum::extract::State;
use http::StatusCode;
use stockade_api::{
    Problem, ProblemCode,
    v1::{Page, Secret},
};
use stockade_domain::{RunSpec, SecretName, TeamId};
use stockade_ports::{MAX_SECRET_BYTES, SecretError, SecretInfo, SecretValue};

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::{NoIdempotencyKey, Octets, Query, Segment},
    error::{Answer, Refusal, internal},
};

fn told(info: SecretInfo) -> Secret {
    Secret {
        name: info.name,
        version: info.version,
        created_at: info.created_at,
        updated_at: info.updated_at,
    }
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => error.into(),
            SecretError::Size(_) => Problem::new(ProblemCode::InvalidBody, error.to_string())
                .with_hint("send the value as the body; to remove a secret, DELETE it")
                .with("limit", MAX_SECRET_BYTES)
                .into(),
            SecretError::OtherKey | SecretError::Damaged | SecretError::NoRandomness => internal(&error.to_string()),
        }
    }
}

fn named(text: &str) -> Answer<SecretName> {
    let name: Result<SecretName, _> = text.parse();
    name.map_err(|error| Problem::new(ProblemCode::InvalidName, error.to_string()).into())
}

/// Whether the team has set every secret that a run needs: those its environment puts into requests, and the one
/// that opens the server of its repository.
pub(crate) async fn insist(app: &App, team: TeamId, spec: &RunSpec) -> Answer<()> {
    let of_host = spec.git_host.as_ref().and_then(|host| host.credential.as_ref());
    let bound = spec.environment.credentials.iter().map(|binding| &binding.secret);
    let named: BTreeSet<&SecretName> = bound.chain(of_host.map(|credential| &credential.secret)).collect();
    if named.is_empty() {
        return Ok(());
    }
    let set: BTreeSet<SecretName> = app
        .secrets
        .list(team)
        .await?
        .into_iter()
        .map(|info| info.name)
        .collect();
    let missing: Vec<&str> = named
        .iter()
        .filter(|name| !set.contains(**name))
        .map(|name| name.as_str())
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(Problem::new(
            ProblemCode::MissingSecret,
            format!("{} that are not set: {}", who(spec, first), missing.join(", ")),
        )
        .with_hint(format!("set them, as in: stockade secret set {first}"))
        .with("missing", missing)
        .into()),
    }
}

/// Who needs the first secret that is missing.
fn who(spec: &RunSpec, missing: &str) -> String {
    let bound = spec
        .environment
        .credentials
        .iter()
        .any(|c| c.secret.as_str() == missing);
    match &spec.git_host {
        Some(host) if !bound => format!("the git host '{}' needs secrets", host.name),
        _ => format!("environment '{}' needs secrets", spec.environment.name),
    }
}

/// Keeps a value. Doing it again keeps it again, as the next version.
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    query: Query,
    _: NoIdempotencyKey,
    Octets(value): Octets<MAX_SECRET_BYTES>,
) -> Answer<(StatusCode, Json<Secret>)> {
    query.only(&[])?;
    let name = named(&name)?;
    let value = SecretValue::new(value.into());
    let kept = app.secrets.put(caller.team, &name, value, app.clock.now()).await?;
    tracing::info!(%name, version = kept.version, by = caller.name, "a secret was set");
    let status = match kept.version {
        1 => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, axum::Json(told(kept))))
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Answer<Json<Page<Secret>>> {
    query.only(&[])?;
    let secrets = app.secrets.list(caller.team).await?;
    Ok(axum::Json(Page::whole(secrets.into_iter().map(told).collect())))
}

/// Removes a secret; requests that need it are refused from now on.
pub(crate) async fn remove(State(app): State<App>, caller: Caller, Segment(name): Segment) -> Answer<Json<Secret>> {
    let removed = app.secrets.remove(caller.team, &named(&name)?).await?;
    tracing::info!(name = %removed.name, by = caller.name, "a secret was removed");
    Ok(axum::Json(told(removed)))
}
