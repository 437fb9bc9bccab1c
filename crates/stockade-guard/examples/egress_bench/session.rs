//! Runs and the Guard they are guarded by.

use std::{net::SocketAddr, path::Path, sync::Arc};

use async_trait::async_trait;
use stockade_bus::InProcessBus;
use stockade_domain::{
    AddressException, BudgetLimits, EgressRule, Environment, NetworkLevel, RuleVerdict, Run, RunId, RunInput, TaskId,
    TeamId,
};
use stockade_gate::Gate;
use stockade_guard::{Guard, GuardConfig};
use stockade_policy::Policy;
use stockade_ports::{
    Clock, CreateRun, CreateTask, Internal, InternalRequest, InternalResponse, Lease, RunIdentity, Store, SystemClock,
    sim::samples,
};
use stockade_store::SqliteStore;

use crate::{INSPECTED, PASSED};

/// What runs are kept in and guarded by.
pub(crate) struct Installation {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) gate: Gate,
    pub(crate) config: GuardConfig,
}

impl Installation {
    pub(crate) async fn open(dir: &Path, nameserver: SocketAddr, roots: Vec<String>) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.join("bench.db")).await.expect("a store"));
        let gate = Gate::new(
            Arc::clone(&store),
            Arc::new(InProcessBus::default()),
            Arc::new(SystemClock),
        );
        let extra_roots = roots.iter().map(|pem| der(pem)).collect();
        let config = GuardConfig {
            nameservers: vec![nameserver],
            extra_roots,
            ..GuardConfig::default()
        };
        Self { store, gate, config }
    }

    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.gate.clone(), Arc::new(Nobody), self.config.clone()).expect("a guard")
    }

    /// A run that has been claimed, and may reach both names.
    pub(crate) async fn run(&self) -> (Run, Lease) {
        let clock = SystemClock;
        let mut spec = samples::spec(samples::limits());
        spec.limits.budget = BudgetLimits::default();
        spec.environment = Environment {
            domains: vec![PASSED.to_owned()],
            egress: vec![EgressRule {
                inspect: true,
                ..EgressRule::hosts(RuleVerdict::Allow, &[INSPECTED])
            }],
            address_exceptions: vec![AddressException {
                cidr: "127.0.77.0/24".to_owned(),
                reason: "the server of the bench".to_owned(),
            }],
            ..Environment::named("bench", NetworkLevel::Custom)
        };
        spec.policy_version = Policy::compile(&spec.agent, &spec.environment)
            .expect("a policy")
            .version();
        let run = RunId::from_uuid(clock.uuid());
        let create = CreateTask {
            id: TaskId::from_uuid(clock.uuid()),
            team: TeamId::DEFAULT,
            prompt: "bench".to_owned(),
            repo: None,
            run: Some(CreateRun { id: run, spec }),
            idempotency_key: None,
            now: clock.now(),
        };
        self.store.create_task(create).await.expect("a task");
        let claim = self.store.claim(clock.now()).await.expect("an answer").expect("a run");
        let running = self
            .store
            .step(claim.run.id, Some(claim.lease), RunInput::Provisioned, clock.now());
        running.await.expect("it runs");
        (claim.run, claim.lease)
    }
}

fn der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// No internal name is used here.
struct Nobody;

#[async_trait]
impl Internal for Nobody {
    fn hosts(&self) -> &[&'static str] {
        &[]
    }

    async fn call(&self, _: RunIdentity, _: &str, request: InternalRequest) -> InternalResponse {
        http::Response::new(request.into_body())
    }
}
