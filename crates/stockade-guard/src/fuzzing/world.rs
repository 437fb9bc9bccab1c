//! A session as connections see it, with nothing behind it.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use stockade_domain::{Amounts, Environment, NetworkLevel, PolicyVerdict, RunId, RunInput, TaskId, TeamId, Verdict};
use stockade_gate::{Admitted, Gate, Scope, kind};
use stockade_policy::{Host, Policy, Protocol};
use stockade_ports::{
    Clock, CreateRun, CreateTask, Internal, InternalRequest, InternalResponse, RunIdentity, Store, SystemClock,
    sim::{MemoryStore, RecordingBus, samples},
};
use tokio::runtime::Runtime;

use crate::{Guard, GuardConfig, Inspector, RequestLine, ask, session::Session};

/// The host that requests may go to.
pub(super) const HOST: &str = "a.example.com";
/// What the name server answers for, beside names below `below.example`.
pub(super) const ALLOWED: &[&str] = &[
    HOST,
    "llm.stockade.internal",
    "tools.stockade.internal",
    "proxy.stockade.internal",
];
/// Uses after which everything is made anew, so that records do not pile up.
const USES: u32 = 64;

/// What was asked about, as `METHOD path?query`.
#[derive(Default)]
pub(super) struct Judged(Mutex<Vec<String>>);

impl Judged {
    /// Takes what was asked about since the last time.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic before"))
    }
}

impl Inspector for Judged {
    fn any(&self, _: &Policy) -> bool {
        false
    }

    fn needs(&self, _: &Policy, _: &Host, _: u16) -> Option<String> {
        Some("fuzzing".to_owned())
    }

    fn judge(&self, _: &Policy, request: &RequestLine<'_>) -> Option<PolicyVerdict> {
        assert_eq!(request.host.to_string(), HOST);
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let denied = request.path.contains("denied");
        let asked = format!("{} {}{query}", request.method, request.path);
        if !denied {
            self.0.lock().expect("no panic before").push(asked);
        }
        denied.then(|| PolicyVerdict {
            verdict: Verdict::Deny,
            rule: "fuzzing".to_owned(),
            reason: "denied".to_owned(),
        })
    }
}

/// Nobody is there.
struct NoGateway;

#[async_trait]
impl Internal for NoGateway {
    fn hosts(&self) -> &[&'static str] {
        &stockade_policy::INTERNAL_HOSTS
    }

    async fn call(&self, _: RunIdentity, _: &str, request: InternalRequest) -> InternalResponse {
        InternalResponse::new(request.into_body())
    }
}

pub(super) struct World {
    pub(super) session: Arc<Session>,
    pub(super) judged: Arc<Judged>,
    uses: u32,
}

/// Runs with a world, the same one for a while.
pub(super) fn with(run: impl FnOnce(&Runtime, &World)) {
    thread_local! {
        static PLACE: RefCell<Option<(Runtime, World)>> = const { RefCell::new(None) };
    }
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_some_and(|(_, world)| world.uses >= USES) {
            *place = None;
        }
        let (runtime, world) = place.get_or_insert_with(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            let world = runtime.block_on(World::new());
            (runtime, world)
        });
        world.uses += 1;
        run(runtime, world);
    });
}

impl World {
    async fn new() -> Self {
        let (store, clock) = (Arc::new(MemoryStore::default()), SystemClock);
        let (run, team) = (RunId::from_uuid(clock.uuid()), TeamId::from_uuid(clock.uuid()));
        let mut spec = samples::spec(samples::limits());
        spec.environment = Environment {
            domains: vec![HOST.to_owned(), "*.below.example".to_owned()],
            ..Environment::named("fuzzing", NetworkLevel::Custom)
        };
        spec.policy_version = Policy::compile(&spec.agent, &spec.environment)
            .expect("a policy")
            .version();
        let create = CreateTask {
            id: TaskId::from_uuid(clock.uuid()),
            team,
            prompt: spec.prompt.clone(),
            repo: None,
            run: Some(CreateRun { id: run, spec }),
            idempotency_key: None,
            now: clock.now(),
        };
        store.create_task(create).await.expect("a task");
        let claim = store.claim(clock.now()).await.expect("a store").expect("a run");
        let step = store.step(run, Some(claim.lease), RunInput::Provisioned, clock.now());
        step.await.expect("a step");
        let gate = Gate::new(store, Arc::new(RecordingBus::default()), Arc::new(clock));
        let config = GuardConfig {
            nameservers: vec![([127, 0, 0, 1], 9).into()],
            dns_timeout: Duration::from_millis(1),
            max_names: 64,
            max_header_bytes: super::LONGEST,
            ..GuardConfig::default()
        };
        let judged = Arc::new(Judged::default());
        let guard = Guard::new(gate, Arc::new(NoGateway), config).expect("a guard");
        let guard = guard.with_inspector(Arc::clone(&judged) as _);
        let scope = Scope::of(&claim.run, claim.lease).expect("a scope");
        let Ok(session) = guard.session(&claim.run, scope, None) else {
            panic!("no session")
        };
        session.trial.end();
        Self {
            session,
            judged,
            uses: 0,
        }
    }

    /// A connection to the host, admitted.
    pub(super) async fn admitted(&self) -> Admitted<kind::Egress> {
        let host = Host::parse(HOST).expect("a host");
        let action = ask::inspected(ask::connect(&host, 443, Protocol::Tls));
        let passed = self.session.gate.pass(&self.session.scope, action, Amounts::ZERO).await;
        passed.unwrap_or_else(|refusal| panic!("{refusal}"))
    }
}
