//! What runs leave behind: the change, the receipt.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use stockade_api::{
    Problem, ProblemCode,
    v1::{ARTIFACTS, Artifact, ArtifactKind, Page, artifact_kind},
};
use stockade_domain::{Digest, Run, RunId};
use stockade_ports::StoreError;

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::Id,
    error::{Answer, Refusal, internal},
};

pub(crate) async fn diff(State(app): State<App>, caller: Caller, Id(id): Id<RunId>) -> Answer<Response> {
    named(&app, &caller, id, "patch").await
}

pub(crate) async fn receipt(State(app): State<App>, caller: Caller, Id(id): Id<RunId>) -> Answer<Response> {
    named(&app, &caller, id, "receipt").await
}

pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<RunId>,
    Path(path): Path<BTreeMap<String, String>>,
) -> Answer<Response> {
    let name = path.get("name").map(String::as_str).unwrap_or_default();
    named(&app, &caller, id, name).await
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, Id(id): Id<RunId>) -> Answer<Json<Page<Artifact>>> {
    app.store.run(Some(caller.team), id).await?;
    let mut items = Vec::new();
    for kind in ARTIFACTS {
        match app.store.artifact(id, kind.name).await {
            Ok(content) => items.push(Artifact {
                name: kind.name.to_owned(),
                media_type: kind.media_type.to_owned(),
                size: content.len() as u64,
                digest: Digest::of_bytes(&content),
            }),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(axum::Json(Page::whole(items)))
}

/// The bytes of an artifact as they were kept, not one of them changed.
async fn named(app: &App, caller: &Caller, id: RunId, name: &str) -> Answer<Response> {
    // Artifacts are not scoped to a team in the store, so this look-up is what keeps others out.
    let run = app.store.run(Some(caller.team), id).await?;
    let Some(kind) = artifact_kind(name) else {
        return Err(absent(&run, name));
    };
    match app.store.artifact(id, kind.name).await {
        Ok(content) => served(kind, content),
        Err(StoreError::NotFound { .. }) => Err(absent(&run, kind.name)),
        Err(error) => Err(error.into()),
    }
}

fn served(kind: &ArtifactKind, content: bytes::Bytes) -> Answer<Response> {
    let name = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", kind.file))
        .map_err(|_| internal("an artifact's file name is no header value"))?;
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.media_type));
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

fn absent(run: &Run, name: &str) -> Refusal {
    let name: String = name.chars().take(80).collect();
    let known: Vec<_> = ARTIFACTS.iter().map(|kind| kind.name).collect();
    let hint = if !known.contains(&name.as_str()) {
        format!("known are: {}", known.join(", "))
    } else if run.state().is_terminal() {
        "the run ended without it; a receipt follows the end within moments".to_owned()
    } else {
        "it is made when the run ends".to_owned()
    };
    Problem::new(
        ProblemCode::NoArtifact,
        format!("{} is {} and has no '{name}'", run.id, run.state().as_str()),
    )
    .with_hint(hint)
    .with("state", run.state().as_str())
    .into()
}
