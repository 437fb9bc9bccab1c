//! The HTTP edge of Stockade.
//!
//! One route map ([`ROUTES`]) is what the router is built from: a route that is not in the
//! map does not exist, and its audience in the map is what guards it. Everything a handler
//! gives out is scoped to the caller's team by the store call itself. Event streams read
//! pages from the store for each connection, as fast as the reader takes them: there is no
//! queue that a slow reader could overflow, and the bus only says when to look.
//!
//! The public listener's requests pass, from the outside in: panic catch, security headers,
//! host and origin checks, the route's guard, the handler.

#![forbid(unsafe_code)]

mod about;
mod approvals;
mod artifacts;
mod auth;
mod body;
mod catalog;
mod edge;
mod error;
mod events;
mod freeze;
mod limits;
pub mod llm;
mod publish;
mod revocations;
mod routes;
mod runs;
mod secrets;
mod server;
mod stream;
mod tasks;
mod tokens;

use std::{ops::Deref, sync::Arc};

use axum::Router;
use stockade_ports::{Bus, Clock, Engine, Secrets, Store};
use tokio::sync::watch;

pub use auth::{NoRandomness, hash_token, mint_token};
pub use catalog::{AgentCheck, BackendCheck, Catalog, RepoProbe};
pub use limits::HttpLimits;
pub use routes::{Audience, Permission, ROUTES, Route};

use edge::HostRule;

/// What a gateway is made of.
pub struct GatewayParts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The teams' secrets.
    pub secrets: Arc<dyn Secrets>,
    /// Hints about it.
    pub bus: Arc<dyn Bus>,
    /// Time and ids.
    pub clock: Arc<dyn Clock>,
    /// Told when a run may have become claimable or should stop.
    pub engine: Arc<dyn Engine>,
    /// Agents, environments and defaults.
    pub catalog: Catalog,
    /// Looks at repositories before anything is created for them.
    pub repo_probe: Arc<dyn RepoProbe>,
    /// What one client may cost.
    pub limits: HttpLimits,
}

/// What handlers share.
pub(crate) struct Shared {
    parts: GatewayParts,
    /// True once the gateway is closing: event streams end.
    closing: watch::Sender<bool>,
}

/// The shared state of handlers; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

impl Deref for App {
    type Target = GatewayParts;

    fn deref(&self) -> &GatewayParts {
        &self.0.parts
    }
}

impl App {
    fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }
}

/// The HTTP edge over its parts.
pub struct Gateway {
    app: App,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: GatewayParts) -> Self {
        let shared = Shared {
            parts,
            closing: watch::Sender::new(false),
        };
        Self {
            app: App(Arc::new(shared)),
        }
    }

    /// The router, answering for loopback names and those of [`HttpLimits::allowed_hosts`].
    pub fn router(&self) -> Router {
        self.router_for(HostRule::loopback(&self.app.limits.allowed_hosts))
    }

    fn router_for(&self, hosts: HostRule) -> Router {
        edge::wrap(routes::router(&self.app), hosts)
    }
}
