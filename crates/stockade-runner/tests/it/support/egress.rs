//! Stands where the Guard is, and counts. Says it saw and refused what a probe tries.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use async_trait::async_trait;
use stockade_domain::Run;
use stockade_ports::{Boundary, Egress, EgressError, EgressSession, Lease, ProbePlan, Tally, Trust};
use tokio::sync::watch;

#[derive(Default)]
pub(crate) struct Sessions {
    /// Boundaries that were taken over.
    pub(crate) opened: AtomicU32,
    /// Sessions whose rules decide: their sandbox was proved.
    pub(crate) released: Arc<AtomicU32>,
    pub(crate) closed: Arc<AtomicU32>,
    /// See nothing, as a Guard would that nobody's packets reach.
    pub(crate) blind: AtomicBool,
    lost: watch::Sender<bool>,
    /// What programs inside have to believe.
    pub(crate) trust: Mutex<Option<Trust>>,
}

impl Sessions {
    /// Lets every session end, as if the Guard had died.
    pub(crate) fn lose(&self) {
        self.lost.send_replace(true);
    }
}

struct Session {
    released: Arc<AtomicU32>,
    closed: Arc<AtomicU32>,
    tally: Tally,
    lost: watch::Receiver<bool>,
    trust: Option<Trust>,
    _boundary: Boundary,
}

#[async_trait]
impl Egress for Sessions {
    async fn guard(
        &self,
        _run: &Run,
        _lease: Lease,
        boundary: Boundary,
    ) -> Result<Box<dyn EgressSession>, EgressError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let plan = ProbePlan::standard(None);
        let mut tally = Tally::default();
        if !self.blind.load(Ordering::SeqCst) {
            tally.denied = plan.denied.iter().map(|addr| addr.ip().to_string()).collect();
            tally.denied.push(plan.denied_name);
        }
        Ok(Box::new(Session {
            released: Arc::clone(&self.released),
            closed: Arc::clone(&self.closed),
            tally,
            lost: self.lost.subscribe(),
            trust: self.trust.lock().unwrap().clone(),
            _boundary: boundary,
        }))
    }
}

#[async_trait]
impl EgressSession for Session {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }

    fn open(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    fn trust(&self) -> Option<Trust> {
        self.trust.clone()
    }

    async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let told = lost.wait_for(|lost| *lost).await.is_ok();
        if !told {
            std::future::pending::<()>().await;
        }
        "the test took it away".to_owned()
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}
