//! The route map: every route, who it is for and what it needs. The router is built from
//! this table and from nothing else.

use axum::{
    Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};
use http::{Method, Uri};
use stockade_api::{Problem, ProblemCode};

use crate::{
    App, about, approvals, artifacts, auth, error::Refusal, events, revocations, runs, secrets, tasks, tokens,
};

/// Who a route answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Anybody; nothing of a team is told.
    Public,
    /// Holders of a team's token; they see that team's things only.
    Team,
    /// Who runs the installation. No such identity comes over the public listener yet, so
    /// these routes refuse everybody.
    Operator,
    /// Other roles of the installation; never over the public listener.
    Internal,
    /// A run, known by the socket it speaks through; never over the public listener.
    Run,
}

/// What a token must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Nothing.
    None,
    /// See tasks, runs, approvals and the catalogue.
    Read,
    /// Create tasks and runs, speak to them and cancel them.
    Run,
    /// Decide approvals.
    Decide,
    /// Take hosts away from the runs of an environment, and give them back.
    Revoke,
    /// Set, list and remove secrets; their values are told to nobody.
    Secrets,
    /// Make, list and revoke tokens.
    Tokens,
}

/// One route.
pub struct Route {
    /// The method, upper case.
    pub method: Method,
    /// The path; parameters in braces.
    pub path: &'static str,
    /// Who it answers to.
    pub audience: Audience,
    /// What the token must be allowed to do.
    pub permission: Permission,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

macro_rules! routes {
    ($($method:ident $path:literal $audience:ident $permission:ident => $handler:path;)*) => {
        /// Every route there is.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            permission: Permission::$permission,
            handler: |filter| method(filter, $handler),
        }),*];
    };
}

routes! {
    GET    "/"                              Team   None   => about::about;
    GET    "/healthz"                       Public None   => about::healthz;
    GET    "/readyz"                        Public None   => about::readyz;
    POST   "/v1/tasks"                      Team   Run    => tasks::create;
    GET    "/v1/tasks"                      Team   Read   => tasks::list;
    GET    "/v1/tasks/{id}"                 Team   Read   => tasks::show;
    POST   "/v1/tasks/{id}/runs"            Team   Run    => tasks::create_run;
    GET    "/v1/runs"                       Team   Read   => runs::list;
    GET    "/v1/runs/{id}"                  Team   Read   => runs::show;
    POST   "/v1/runs/{id}/cancel"           Team   Run    => runs::cancel;
    POST   "/v1/runs/{id}/messages"         Team   Run    => runs::send;
    GET    "/v1/runs/{id}/events"           Team   Read   => events::events;
    GET    "/v1/runs/{id}/diff"             Team   Read   => artifacts::diff;
    GET    "/v1/runs/{id}/receipt"          Team   Read   => artifacts::receipt;
    GET    "/v1/runs/{id}/artifacts"        Team   Read   => artifacts::list;
    GET    "/v1/runs/{id}/artifacts/{name}" Team   Read   => artifacts::show;
    GET    "/v1/approvals"                  Team   Read   => approvals::list;
    GET    "/v1/approvals/{id}"             Team   Read   => approvals::show;
    POST   "/v1/approvals/{id}/decision"    Team   Decide => approvals::decide;
    GET    "/v1/agents"                     Team   Read   => about::agents;
    GET    "/v1/environments"               Team   Read   => about::environments;
    GET    "/v1/environments/{name}/explain" Team  Read   => about::explain;
    POST   "/v1/environments/{name}/revocations" Team Revoke => revocations::create;
    GET    "/v1/environments/{name}/revocations" Team Read => revocations::list;
    DELETE "/v1/environments/{name}/revocations/{id}" Team Revoke => revocations::lift;
    PUT    "/v1/secrets/{name}"             Team   Secrets => secrets::put;
    GET    "/v1/secrets"                    Team   Secrets => secrets::list;
    DELETE "/v1/secrets/{name}"             Team   Secrets => secrets::remove;
    POST   "/v1/tokens"                     Team   Tokens => tokens::create;
    GET    "/v1/tokens"                     Team   Tokens => tokens::list;
    DELETE "/v1/tokens/{id}"                Team   Tokens => tokens::revoke;
}

fn method<H, T>(filter: MethodFilter, handler: H) -> MethodRouter<App>
where
    H: Handler<T, App>,
    T: 'static,
{
    on(filter, handler)
}

/// Builds the router, each handler behind the guard of its route.
pub(crate) fn router(app: &App) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        // The map names methods axum knows; a test builds the router.
        let filter = MethodFilter::try_from(route.method.clone()).expect("a standard method");
        let guarded = (route.handler)(filter).route_layer(from_fn_with_state((app.clone(), route), auth::guard));
        router = router.route(route.path, guarded);
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .with_state(app.clone())
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let path = shown(uri.path());
    Problem::new(ProblemCode::MethodNotAllowed, format!("{path} does not take {method}"))
        .with_hint("the Allow header lists the methods it takes")
        .into()
}

async fn no_such_route(method: Method, uri: Uri) -> Refusal {
    let path = shown(uri.path());
    Problem::new(ProblemCode::NoSuchRoute, format!("there is no {method} {path}"))
        .with_hint("docs/api.md lists the routes; they begin with /v1")
        .into()
}

fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}
