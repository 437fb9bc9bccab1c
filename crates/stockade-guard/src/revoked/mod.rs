//! Emergency revocation: what operators take away from a running session.
//!
//! The environment of a run is frozen; a revocation reaches it nevertheless, and only ever takes
//! away. It is kept in the store; the bus says when to look, and the store is read from time to
//! time without that. A Guard that could not read it for too long lets nothing out and cuts what
//! is open.

mod feed;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use stockade_domain::{Revocation, RevocationId, TeamId, revocation::REVOKED};
use stockade_policy::{Host, Revoked};
use tokio::sync::watch;

use crate::session::Denial;

pub(crate) use feed::Feed;

/// What is revoked for one session.
pub(crate) struct Revocations {
    feed: Arc<Feed>,
    team: TeamId,
    environment: String,
    state: watch::Receiver<feed::State>,
    list: RwLock<Arc<Vec<(Revoked, Revocation)>>>,
    told: Mutex<BTreeMap<RevocationId, Revocation>>,
}

/// What changed since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) revoked: Vec<Revocation>,
    pub(crate) lifted: Vec<Revocation>,
}

impl Revocations {
    /// What is revoked for the runs of a team in an environment.
    pub(crate) fn of(feed: &Arc<Feed>, team: TeamId, environment: &str) -> Self {
        let own = Self {
            feed: Arc::clone(feed),
            team,
            environment: environment.to_owned(),
            state: feed.subscribe(),
            list: RwLock::default(),
            told: Mutex::default(),
        };
        own.refresh();
        own
    }

    /// Every change from here on.
    pub(crate) fn changes(&self) -> watch::Receiver<feed::State> {
        self.feed.subscribe()
    }

    /// Takes over what is known now.
    pub(crate) fn refresh(&self) {
        let state = self.state.borrow().clone();
        let own = |r: &&Revocation| r.team == self.team && r.environment == self.environment;
        let read = |r: &Revocation| (Revoked::parse(&r.hosts).unwrap_or(Revoked::ALL), r.clone());
        let list: Vec<_> = state.list.iter().filter(own).map(read).collect();
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// Why nothing may go to these hosts, if it may not.
    pub(crate) fn denial(&self, hosts: &[Host]) -> Option<Denial> {
        if !self.feed.is_fresh() {
            return Some(Denial {
                rule: "stockade.revocations".to_owned(),
                reason: "the store does not say what is revoked, so nothing is let out".to_owned(),
            });
        }
        let list = Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner));
        let taken = |(revoked, _): &&(Revoked, Revocation)| hosts.iter().any(|host| revoked.names(host));
        list.iter().find(taken).map(|(_, revocation)| denial(revocation))
    }

    /// What is in force or lifted and was not in an earlier answer.
    pub(crate) fn news(&self) -> News {
        let list = Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeMap<_, _> = list.iter().map(|(_, r)| (r.id, r.clone())).collect();
        let revoked = now
            .iter()
            .filter(|(id, _)| !told.contains_key(id))
            .map(|(_, r)| r.clone());
        let lifted = told
            .iter()
            .filter(|(id, _)| !now.contains_key(id))
            .map(|(_, r)| r.clone());
        let news = News {
            revoked: revoked.collect(),
            lifted: lifted.collect(),
        };
        *told = now;
        news
    }
}

fn denial(revocation: &Revocation) -> Denial {
    let why = match revocation.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    Denial {
        rule: REVOKED.to_owned(),
        reason: format!("'{}' was revoked by {}{why}", revocation.hosts, revocation.by),
    }
}
