//! Nothing is released that did not measure up, and a proof needs every part.
#![allow(unused_crate_dependencies)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_ports::{
    Boundary, EgressSession, ExecRequest, FreshSandbox, Measurement, ProbePlan, Process, SandboxError, SandboxEvidence,
    SandboxHandle, Snapshot, Tally, Witness, prove,
    sandbox::{Download, Entry, Listing, MEASURED_INSIDE, Proof, Upload, Watched},
};

/// A sandbox that reports what it is told to.
#[derive(Clone, Default)]
struct Paper {
    measurement: Measurement,
    broken: bool,
    destroyed: Arc<AtomicBool>,
    witness: Option<Arc<Lamp>>,
}

impl Paper {
    fn good() -> Self {
        let mut paper = Self::default();
        for name in MEASURED_INSIDE {
            paper.measurement.note(name, "good", "good", true);
        }
        paper
    }
}

#[async_trait]
impl FreshSandbox for Paper {
    fn take_boundary(&mut self) -> Option<Boundary> {
        None
    }

    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence::default()
    }

    async fn measure(&self, _plan: &ProbePlan) -> Result<Measurement, SandboxError> {
        if self.broken {
            return Err(SandboxError::Gone("while it was measured".to_owned()));
        }
        if let Some(lamp) = &self.witness {
            lamp.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.measurement.clone())
    }

    fn release(self: Box<Self>, _proof: Proof) -> Arc<dyn SandboxHandle> {
        Arc::new(*self)
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.destroyed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

fn never<T>() -> Result<T, SandboxError> {
    Err(SandboxError::Gone("it is made of paper".to_owned()))
}

#[async_trait]
impl SandboxHandle for Paper {
    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence::default()
    }
    async fn exec(&self, _: ExecRequest) -> Result<Process, SandboxError> {
        never()
    }
    async fn read_file(&self, _: &str, _: u64) -> Result<Bytes, SandboxError> {
        never()
    }
    async fn write_file(&self, _: &str, _: Bytes, _: u32) -> Result<(), SandboxError> {
        never()
    }
    async fn download(&self, _: &str, _: u64) -> Result<Download, SandboxError> {
        never()
    }
    async fn upload(&self, _: &str, _: u32, _: u64) -> Result<Upload, SandboxError> {
        never()
    }
    async fn stat(&self, _: &str) -> Result<Entry, SandboxError> {
        never()
    }
    async fn list(&self, _: &str, _: u32, _: u32) -> Result<Listing, SandboxError> {
        never()
    }
    async fn make_dir(&self, _: &str, _: u32) -> Result<(), SandboxError> {
        never()
    }
    async fn remove(&self, _: &str, _: bool) -> Result<(), SandboxError> {
        never()
    }
    async fn rename(&self, _: &str, _: &str) -> Result<(), SandboxError> {
        never()
    }
    async fn watch(&self, _: &str, _: bool) -> Result<Watched, SandboxError> {
        never()
    }
    async fn pause(&self) -> Result<(), SandboxError> {
        never()
    }
    async fn resume(&self) -> Result<(), SandboxError> {
        never()
    }
    async fn snapshot(&self, _: &Path) -> Result<Snapshot, SandboxError> {
        never()
    }
    async fn stop(&self, _: Duration) -> Result<(), SandboxError> {
        never()
    }
    async fn destroy(&self) -> Result<(), SandboxError> {
        never()
    }
    async fn ended(&self) -> String {
        String::new()
    }
}

/// A session with a tally as it is told.
#[derive(Default)]
struct Session {
    tally: Mutex<Tally>,
    opened: AtomicBool,
}

impl Session {
    fn good() -> Self {
        let plan = ProbePlan::standard(None);
        let mut denied: Vec<_> = plan.denied.iter().map(|addr| addr.ip().to_string()).collect();
        denied.push(plan.denied_name);
        Self::that(|tally| tally.denied = denied)
    }

    fn that(saw: impl FnOnce(&mut Tally)) -> Self {
        let session = Self::default();
        saw(&mut session.tally.lock().unwrap());
        session
    }
}

#[async_trait]
impl EgressSession for Session {
    fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }
    fn open(&self) {
        self.opened.store(true, Ordering::SeqCst);
    }
    async fn lost(&self) -> String {
        std::future::pending().await
    }
    async fn close(&self) {}
}

/// A witness that lights up when it is reached.
#[derive(Default)]
struct Lamp(AtomicU64);

impl Witness for Lamp {
    fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    fn abstract_socket(&self) -> Option<String> {
        None
    }
    fn hits(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a refused sandbox failed with; it must be gone and its session must stay closed.
async fn refused(paper: Paper, plan: &ProbePlan, session: &Session) -> Vec<String> {
    let destroyed = Arc::clone(&paper.destroyed);
    let result = prove(Box::new(paper), plan, session).await;
    assert!(destroyed.load(Ordering::SeqCst), "it is destroyed");
    assert!(!session.opened.load(Ordering::SeqCst), "the session stays closed");
    match result.err() {
        Some(SandboxError::Unproved { failed }) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_measures_up_is_released_and_its_session_opened() {
    let session = Session::good();
    let (_, measured) = prove(Box::new(Paper::good()), &ProbePlan::standard(None), &session)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(session.opened.load(Ordering::SeqCst));
    assert!(measured.checks.iter().all(|check| check.ok));
}

#[tokio::test]
async fn each_failed_or_missing_check_refuses() {
    let plan = ProbePlan::standard(None);
    for (at, name) in MEASURED_INSIDE.into_iter().enumerate() {
        let mut failing = Paper::good();
        failing.measurement.checks[at].ok = false;
        let failed = refused(failing, &plan, &Session::good()).await;
        assert!(failed.len() == 1 && failed[0].starts_with(name), "{failed:?}");
        let mut silent = Paper::good();
        silent.measurement.checks.remove(at);
        let failed = refused(silent, &plan, &Session::good()).await;
        assert_eq!(failed, [format!("{name}: was not measured")]);
    }
}

#[tokio::test]
async fn a_denial_that_the_guard_did_not_make_is_luck_and_refused() {
    let plan = ProbePlan::standard(None);
    let unseen = Session::that(|tally| tally.denied.push(plan.denied_name.clone()));
    assert!(refused(Paper::good(), &plan, &unseen).await[0].contains("never saw 192.0.2.1:80"));
    let nameless = Session::that(|tally| tally.denied.push("192.0.2.1".to_owned()));
    assert!(refused(Paper::good(), &plan, &nameless).await[0].contains("never saw the name"));
    let lenient = Session::good();
    lenient.tally.lock().unwrap().allowed.push("192.0.2.1".to_owned());
    assert!(refused(Paper::good(), &plan, &lenient).await[0].contains("1 allowed"));
}

#[tokio::test]
async fn a_witness_that_was_reached_refuses_whatever_the_guest_says() {
    let lamp = Arc::new(Lamp::default());
    let plan = ProbePlan::standard(Some(Arc::clone(&lamp) as _));
    assert!(prove(Box::new(Paper::good()), &plan, &Session::good()).await.is_ok());
    let leaky = Paper {
        witness: Some(lamp),
        ..Paper::good()
    };
    assert!(refused(leaky, &plan, &Session::good()).await[0].starts_with("canary.silent"));
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_measured_is_destroyed() {
    let paper = Paper {
        broken: true,
        ..Paper::good()
    };
    let destroyed = Arc::clone(&paper.destroyed);
    let session = Session::good();
    assert!(matches!(
        prove(Box::new(paper), &ProbePlan::standard(None), &session).await.err(),
        Some(SandboxError::Gone(_))
    ));
    assert!(destroyed.load(Ordering::SeqCst) && !session.opened.load(Ordering::SeqCst));
}
