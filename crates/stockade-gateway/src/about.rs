//! What the installation is, offers, and whether it is well.

use axum::extract::{Path, State, rejection::PathRejection};
use stockade_api::{
    ProblemCode,
    v1::{About, AgentItem, EnvironmentItem, Health, Page},
};
use stockade_domain::Explanation;
use stockade_policy::{Place, Policy};

use crate::{
    App,
    auth::Caller,
    body::Query,
    error::{Answer, refuse},
    freeze,
};

/// A JSON answer.
pub(crate) type Json<T> = axum::Json<T>;

pub(crate) async fn about(State(app): State<App>, caller: Caller) -> Json<About> {
    let catalog = &app.catalog;
    axum::Json(About {
        name: "stockade".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        token: caller.name,
        default_agent: catalog.default_agent.clone(),
        default_environment: catalog.default_environment.clone(),
        default_model: catalog.default_model.clone(),
        provider: catalog.provider.clone(),
        backends: catalog.backends.clone(),
    })
}

fn well() -> Json<Health> {
    axum::Json(Health {
        status: "ok".to_owned(),
    })
}

/// The process answers.
pub(crate) async fn healthz() -> Json<Health> {
    well()
}

/// The store answers too, asked now.
pub(crate) async fn readyz(State(app): State<App>) -> Answer<Json<Health>> {
    app.store.ping().await?;
    Ok(well())
}

pub(crate) async fn agents(State(app): State<App>, _: Caller, query: Query) -> Answer<Json<Page<AgentItem>>> {
    query.only(&[])?;
    let catalog = &app.catalog;
    let items = catalog.agents.iter().map(|(name, spec)| AgentItem {
        spec: spec.clone(),
        default: *name == catalog.default_agent,
        unavailable: (catalog.agent_check)(spec).err(),
    });
    Ok(axum::Json(Page::whole(items.collect())))
}

pub(crate) async fn environments(
    State(app): State<App>,
    _: Caller,
    query: Query,
) -> Answer<Json<Page<EnvironmentItem>>> {
    query.only(&[])?;
    let catalog = &app.catalog;
    let items = catalog.environments.iter().map(|(name, spec)| EnvironmentItem {
        spec: spec.clone(),
        default: *name == catalog.default_environment,
    });
    Ok(axum::Json(Page::whole(items.collect())))
}

/// What an environment says to a URL, and why; nothing is looked up and nothing is connected to.
pub(crate) async fn explain(
    State(app): State<App>,
    _: Caller,
    name: Result<Path<String>, PathRejection>,
    query: Query,
) -> Answer<Json<Explanation>> {
    let Path(name) = name.map_err(|error| refuse(ProblemCode::NotFound, error.body_text()))?;
    let query = query.only(&["url", "method", "agent"])?;
    let environment = freeze::environment(&app.catalog, Some(&name))?;
    let agent = query.get::<String>("agent")?.map(stockade_api::v1::NameOr::Name);
    let agent = freeze::agent(&app.catalog, agent)?;
    let method = query.get::<String>("method")?;
    let place = query.with("url", |url| {
        Place::parse(url, method.as_deref()).map_err(|error| error.to_string())
    })?;
    let place = place.ok_or_else(|| {
        refuse(
            ProblemCode::InvalidQuery,
            "url is missing: name what to explain, like ?url=https://api.example.com/path",
        )
    })?;
    let policy = Policy::compile(&agent, &environment).map_err(freeze::invalid_policy)?;
    Ok(axum::Json(policy.explain(&place)))
}
