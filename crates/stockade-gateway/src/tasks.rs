//! Tasks, and the runs made of them.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use stockade_api::v1::{self, CreateTask, NameOr, Page, TaskCreated};
use stockade_domain::{RepoSpec, RunId, RunSpec, TaskId};
use stockade_ports::{CreateRun, Created, Topic};

use crate::{
    App,
    about::Json,
    auth::Caller,
    body::{Id, IdempotencyKey, Json as JsonBody, OptionalJson, Query},
    error::Answer,
    freeze, secrets,
};

/// How many items a page of a list has when nothing is said, and at most.
pub(crate) const PAGE: (u32, u32) = (50, 200);

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(task): JsonBody<CreateTask>,
) -> Answer<Response> {
    freeze::text(&app, "prompt", &task.prompt)?;
    let repo = task.repo.map(NameOr::into_spec);
    let wanted = v1::CreateRun {
        agent: task.agent,
        environment: task.environment,
        model: task.model,
        backend: task.backend,
        limits: task.limits,
        snapshot: task.snapshot,
        publish: task.publish,
    };
    let run = if task.run {
        let spec = freeze::freeze(&app.catalog, task.prompt.clone(), repo.clone(), wanted)?;
        secrets::insist(&app, caller.team, &spec).await?;
        Some(new_run(&app, spec))
    } else {
        freeze::no_run_options(&wanted)?;
        None
    };
    check_repo(&app, repo.as_ref()).await?;
    let request = stockade_ports::CreateTask {
        id: TaskId::from_uuid(app.clock.uuid()),
        team: caller.team,
        prompt: task.prompt,
        repo,
        run,
        idempotency_key: key,
        now: app.clock.now(),
    };
    let created = app.store.create_task(request).await?;
    announce(&app, created).await
}

pub(crate) async fn create_run(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<TaskId>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalJson(wanted): OptionalJson<v1::CreateRun>,
) -> Answer<Response> {
    let task = app.store.task(caller.team, id).await?;
    let spec = freeze::freeze(&app.catalog, task.prompt, task.repo.clone(), wanted)?;
    secrets::insist(&app, caller.team, &spec).await?;
    check_repo(&app, task.repo.as_ref()).await?;
    let run = new_run(&app, spec);
    let created = app.store.create_run(caller.team, id, run, key, app.clock.now()).await?;
    announce(&app, created).await
}

async fn check_repo(app: &App, repo: Option<&RepoSpec>) -> Answer<()> {
    match repo {
        Some(repo) => freeze::repository(app, repo).await,
        None => Ok(()),
    }
}

fn new_run(app: &App, spec: RunSpec) -> CreateRun {
    CreateRun {
        id: RunId::from_uuid(app.clock.uuid()),
        spec,
    }
}

/// Tells engine and listeners, then the caller: 201 with the place of what was created, or
/// 200 when an earlier request had created it.
async fn announce(app: &App, created: Created) -> Answer<Response> {
    let place = match &created.run {
        Some(run) => {
            app.bus.publish(Topic::Queue).await;
            app.bus.publish(Topic::Run(run.id)).await;
            app.engine.wake(run.id).await;
            format!("/v1/runs/{}", run.id)
        }
        None => format!("/v1/tasks/{}", created.task.id),
    };
    let status = if created.replayed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let body = TaskCreated {
        task: created.task.into(),
        run: created.run.map(Into::into),
        replayed: created.replayed,
    };
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

pub(crate) async fn list(State(app): State<App>, caller: Caller, query: Query) -> Answer<Json<Page<v1::Task>>> {
    let query = query.only(&["cursor", "limit"])?;
    let limit = query.limit(PAGE.0, PAGE.1)?;
    let tasks = app.store.tasks(caller.team, query.get("cursor")?, limit + 1).await?;
    Ok(axum::Json(page(tasks, limit, |task| task.id.to_string())))
}

pub(crate) async fn show(State(app): State<App>, caller: Caller, Id(id): Id<TaskId>) -> Answer<Json<v1::Task>> {
    Ok(axum::Json(app.store.task(caller.team, id).await?.into()))
}

/// Cuts one item more than asked for into a page and where the rest begins.
pub(crate) fn page<T, V: From<T>>(mut found: Vec<T>, limit: u32, place: impl Fn(&T) -> String) -> Page<V> {
    let limit = limit as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = if more { found.last().map(place) } else { None };
    Page {
        items: found.into_iter().map(V::from).collect(),
        next,
    }
}
