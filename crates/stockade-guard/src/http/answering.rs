//! Who answers the requests of one client connection: an exchange with one host, or a proxy's.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use http::Request;
use hyper::body::Incoming;
use stockade_domain::Action;

use super::{
    exchange::{Answer, Exchange},
    filter::Valve,
    upgrade::Upgraded,
};
use crate::{
    meter::Meter,
    session::Session,
    traffic::{Ledger, Tab, Tap},
};

/// Who answers the requests of one client connection.
#[async_trait]
pub(crate) trait Answering: Send + Sync + 'static {
    fn session(&self) -> &Arc<Session>;

    /// Silence between the client and the Guard.
    fn idle(&self) -> &Arc<Meter>;

    fn valve(&self) -> &Arc<Valve>;

    /// What a request that cannot be read is a fault of.
    fn action(&self) -> Action;

    async fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer;

    /// The other side of a connection that is no HTTP any more.
    async fn take_upgraded(&self) -> Option<Upgraded>;

    /// What carries the bytes of a connection that is no HTTP any more.
    async fn take_blind(&self) -> Arc<Tap>;

    /// Resolves when the connection outwards is cut.
    async fn severed(&self);

    /// Settles a connection that was cut, beside whatever still waits for it.
    fn spawn_close(self: Arc<Self>);

    /// Settles what was open.
    async fn close(&self, ended: &str);
}

#[async_trait]
impl Answering for Exchange {
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
        Self::action(self)
    }

    async fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        Self::call(&self, request).await
    }

    async fn take_upgraded(&self) -> Option<Upgraded> {
        self.upgraded.lock().await.take()
    }

    async fn take_blind(&self) -> Arc<Tap> {
        let tabs = std::mem::take(&mut *self.upgraded_tabs.lock().await);
        match self.outer.lock().await.as_ref() {
            Some(outer) => outer.tap().blind(tabs),
            None => Tap::new(Arc::default(), tabs),
        }
    }

    async fn severed(&self) {
        Self::severed(self).await;
    }

    fn spawn_close(self: Arc<Self>) {
        Self::spawn_close(&self);
    }

    async fn close(&self, ended: &str) {
        Self::close(self, ended).await;
    }
}

impl Exchange {
    /// What requests of this connection count towards a ledger.
    pub(super) fn tab(&self, ledger: &Arc<Ledger>) -> Arc<Tab> {
        let mut tabs = self.tabs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tab) = tabs.iter().find(|tab| Arc::ptr_eq(tab.ledger(), ledger)) {
            return Arc::clone(tab);
        }
        let tab = Tab::new(ledger);
        tabs.push(Arc::clone(&tab));
        tab
    }

    /// Resolves when the connection outwards is cut.
    pub(super) async fn severed(&self) {
        let mut cuts = self.cut.subscribe();
        loop {
            let cut = cuts.borrow_and_update().clone();
            let happened = async {
                match &cut {
                    Some(cut) => cut.happened().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = happened => return,
                changed = cuts.changed() => if changed.is_err() { std::future::pending().await },
            }
        }
    }

    /// Settles a connection that was cut, beside whatever still waits for it.
    pub(super) fn spawn_close(self: &Arc<Self>) {
        self.cut.send_replace(None);
        let own = Arc::clone(self);
        self.session.tasks.spawn(async move {
            let mut place = own.outer.lock().await;
            let is_cut = place.as_ref().is_some_and(|outer| outer.tap().cut.why().is_some());
            let cut = if is_cut { place.take() } else { None };
            drop(place);
            if let Some(cut) = cut {
                cut.close("cut").await;
            }
        });
    }
}
