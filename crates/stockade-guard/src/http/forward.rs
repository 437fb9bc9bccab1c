//! Requests that a client sends to its proxy: each names its whole URL, and goes where a
//! connection to that place would have gone, by the same verdicts.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use stockade_domain::Action;
use stockade_policy::{
    Fault, Host, Protocol, RequestTarget, Scheme,
    egress::{INTERNAL_PORT, PROXY_PORT},
    target::TargetForm,
};
use tokio::sync::{Mutex, watch};

use super::{
    answering::Answering,
    exchange::{Answer, Exchange},
    filter::Valve,
    internal,
    problem::problem,
    request::target,
    upgrade::Upgraded,
};
use crate::{
    ask,
    connection::{Conversation, Place},
    meter::Meter,
    proxy,
    session::Session,
    traffic::Tap,
};

/// One client connection and the exchange with the host it asked for last.
pub(super) struct Forward {
    session: Arc<Session>,
    idle: Arc<Meter>,
    valve: Arc<Valve>,
    current: Mutex<Option<Arc<Exchange>>>,
    /// The same, for who waits for what becomes of it.
    shown: watch::Sender<Option<Arc<Exchange>>>,
}

impl Forward {
    pub(super) fn new(session: Arc<Session>) -> Arc<Self> {
        Arc::new(Self {
            session,
            idle: Arc::new(Meter::new()),
            valve: Arc::default(),
            current: Mutex::default(),
            shown: watch::Sender::default(),
        })
    }

    /// Where a request goes; no proxy is asked for anything but a whole URL of plain HTTP.
    fn read(&self, request: &Request<Incoming>) -> Result<RequestTarget, Box<Action>> {
        let wrong = |fault| {
            let named = request.uri().authority().map(|authority| json!(authority.as_str()));
            let action = ask::faulty(proxy::action(PROXY_PORT), fault);
            let told = named
                .into_iter()
                .fold(action, |action, named| ask::with(action, "authority", named));
            Err(Box::new(told))
        };
        match target(request, Scheme::Http) {
            Ok(target) if target.form == TargetForm::Absolute => Ok(target),
            Ok(_) => wrong(Fault::ProxyForm),
            Err(error) => wrong(error.fault()),
        }
    }

    /// The exchange with a host; one with another host ends.
    async fn exchange(&self, host: Host, port: u16) -> Arc<Exchange> {
        let mut current = self.current.lock().await;
        if let Some(exchange) = current.as_ref().filter(|exchange| exchange.is_for(&host, port)) {
            return Arc::clone(exchange);
        }
        let (session, idle, valve) = (
            Arc::clone(&self.session),
            Arc::clone(&self.idle),
            Arc::clone(&self.valve),
        );
        let exchange = Exchange::plain(session, host, port, idle, valve);
        self.shown.send_replace(Some(Arc::clone(&exchange)));
        if let Some(left) = current.replace(Arc::clone(&exchange)) {
            left.close("closed").await;
        }
        exchange
    }

    async fn refused(&self, status: StatusCode, action: Action) -> Answer {
        let denial = self.session.refuse(action).await;
        problem(status, &denial.rule, &denial.reason, true)
    }
}

#[async_trait]
impl Answering for Forward {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    fn idle(&self) -> &Arc<Meter> {
        &self.idle
    }

    fn valve(&self) -> &Arc<Valve> {
        &self.valve
    }

    fn action(&self) -> Action {
        proxy::action(PROXY_PORT)
    }

    async fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let target = match self.read(&request) {
            Ok(target) => target,
            Err(action) => return self.refused(StatusCode::BAD_REQUEST, *action).await,
        };
        let action = ask::connect(&target.host, target.port, Protocol::Http);
        match Place::of(&self.session, target.host, target.port) {
            Place::Internal(name) if target.port == INTERNAL_PORT => internal::call(&self.session, name, request).await,
            Place::Internal(_) | Place::Proxy => self.refused(StatusCode::FORBIDDEN, action).await,
            Place::Nowhere(_, fault) => self.refused(StatusCode::FORBIDDEN, ask::faulty(action, fault)).await,
            Place::Host(host) => {
                let conversation = Conversation::new(Arc::clone(&self.session), host.clone(), target.port);
                if let Some(action) = conversation.closed_whatever_is_spoken() {
                    return self.refused(StatusCode::FORBIDDEN, action).await;
                }
                self.exchange(host, target.port).await.call(request).await
            }
        }
    }

    async fn take_upgraded(&self) -> Option<Upgraded> {
        let current = self.current.lock().await.clone();
        match current {
            Some(exchange) => Answering::take_upgraded(&*exchange).await,
            None => None,
        }
    }

    async fn take_blind(&self) -> Arc<Tap> {
        let current = self.current.lock().await.clone();
        match current {
            Some(exchange) => Answering::take_blind(&*exchange).await,
            None => Tap::new(Arc::default(), Vec::new()),
        }
    }

    async fn severed(&self) {
        let mut shown = self.shown.subscribe();
        loop {
            let current = shown.borrow_and_update().clone();
            let severed = async {
                match &current {
                    Some(exchange) => Exchange::severed(exchange).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = severed => return,
                // The sender is this forward's own, which is borrowed here.
                _ = shown.changed() => {}
            }
        }
    }

    fn spawn_close(self: Arc<Self>) {
        let current = self.shown.borrow().clone();
        if let Some(exchange) = current {
            Exchange::spawn_close(&exchange);
        }
    }

    async fn close(&self, ended: &str) {
        self.shown.send_replace(None);
        if let Some(exchange) = self.current.lock().await.take() {
            exchange.close(ended).await;
        }
    }
}
