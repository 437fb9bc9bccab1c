//! A gateway on a socket over a store in memory, with two teams.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use stockade_api::{Client, v1::CreateTask};
use stockade_domain::{
    Action, ActionId, ActionKind, AgentKind, AgentSpec, Amounts, Approval, ApprovalId, Environment, EventType, Failure,
    GitHost, Limits, LimitsPatch, NetworkLevel, NewEvent, PolicyVerdict, RepoSpec, Run, RunId, RunInput, TaskId,
    TeamId, TokenId, Verdict, Wire, admission::AdmitRequest,
};
use stockade_gateway::{Catalog, Gateway, GatewayParts, HttpLimits, RepoProbe, hash_token, mint_token};
use stockade_ports::{Clock, Engine, Lease, ManualClock, Store, TokenRecord, sim::MemoryStore, sim::RecordingBus};
use stockade_vault::{InstallationKey, Vault};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use uuid::Uuid;

use crate::raw::{Answer, Call};

/// Writes down which runs it was woken for.
#[derive(Default)]
pub(crate) struct RecordingEngine(Mutex<Vec<RunId>>);

impl RecordingEngine {
    pub(crate) fn woken(&self) -> Vec<RunId> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Engine for RecordingEngine {
    async fn wake(&self, run: RunId) {
        self.0.lock().unwrap().push(run);
    }

    async fn shutdown(&self) {}
}

/// Refuses `missing`, breaks on `panic`, finds everything else.
struct Probe;

#[async_trait]
impl RepoProbe for Probe {
    async fn check(&self, repo: &RepoSpec) -> Result<(), Failure> {
        match repo.source.as_str() {
            "missing" => {
                Err(Failure::terminal("not_found", "there is no repository at 'missing'").with_hint("clone it"))
            }
            "panic" => panic!("the probe broke: secret-detail"),
            _ => Ok(()),
        }
    }
}

fn agent(name: &str) -> AgentSpec {
    AgentSpec {
        name: name.to_owned(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: Vec::new(),
        limits: LimitsPatch::default(),
    }
}

fn check(agent: &AgentSpec) -> Result<(), Failure> {
    if agent.name == "broken" {
        return Err(Failure::terminal("not_installed", "its files are not there").with_hint("npm install it"));
    }
    Ok(())
}

/// One with everything, one without an API, one without a credential.
fn git_hosts() -> Vec<GitHost> {
    let hosts = json!([
        { "name": "forge", "url": "https://git.example.com", "api_url": "https://api.example.com", "credential": "BOT" },
        { "name": "plain", "url": "https://plain.example.com" },
        { "name": "open", "url": "https://open.example.com", "api_url": "https://open.example.com/api" },
    ]);
    serde_json::from_value(hosts).unwrap()
}

pub(crate) fn catalog() -> Catalog {
    let mut careful = agent("careful");
    careful.model = Some("careful-model".to_owned());
    careful.limits.inactivity_seconds = Some(77);
    careful.limits.wall_clock_seconds = Some(78);
    let agents = [agent("builtin"), agent("broken"), careful];
    let mut bound = Environment::named("bound", NetworkLevel::Trusted);
    let credential = json!({ "secret": "GITHUB_TOKEN", "kind": "bearer", "hosts": ["api.github.com"] });
    bound.credentials = vec![serde_json::from_value(credential).unwrap()];
    let environments = [
        bound,
        Environment::named("default", NetworkLevel::None),
        Environment::named("open", NetworkLevel::Trusted),
    ];
    Catalog {
        agents: agents.map(|a| (a.name.clone(), a)).into(),
        environments: environments.map(|e| (e.name.clone(), e)).into(),
        default_agent: "builtin".to_owned(),
        default_environment: "default".to_owned(),
        default_model: Some("model-1".to_owned()),
        provider: Some("scripted".to_owned()),
        wires: vec![Wire::AnthropicMessages],
        backends: vec!["native".to_owned(), "runc".to_owned()],
        git_hosts: git_hosts(),
        limits: Limits::default(),
        agent_check: Arc::new(check),
        backend_check: Arc::new(|spec| match &spec.snapshot.from {
            Some(digest) => Err(Failure::terminal("snapshot", format!("there is no snapshot {digest}"))),
            None => Ok(()),
        }),
    }
}

/// A gateway on a socket.
pub(crate) struct Harness {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) bus: Arc<RecordingBus>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Arc<RecordingEngine>,
    /// Token of the team most tests use.
    pub(crate) token: String,
    /// Token of a team that has nothing to do with it.
    pub(crate) other: String,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(catalog(), HttpLimits::default()).await
    }

    pub(crate) async fn with(catalog: Catalog, limits: HttpLimits) -> Self {
        let store = Arc::new(MemoryStore::default());
        let bus = Arc::new(RecordingBus::default());
        let clock = Arc::new(ManualClock::at(1_750_000_000_000));
        let engine = Arc::new(RecordingEngine::default());
        let token = keep_token(&*store, &*clock, TeamId::DEFAULT, "alice").await;
        let other_team = TeamId::from_uuid(Uuid::from_u128(0xbeef));
        let other = keep_token(&*store, &*clock, other_team, "mallory").await;
        let gateway = Gateway::new(GatewayParts {
            store: store.clone(),
            secrets: Arc::new(Vault::new(store.clone(), InstallationKey::generate().unwrap())),
            bus: bus.clone(),
            clock: clock.clone(),
            engine: engine.clone(),
            catalog,
            repo_probe: Arc::new(Probe),
            limits,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let until = async {
                let _ = stopped.await;
            };
            gateway.serve(listener, until).await
        });
        Self {
            address,
            store,
            bus,
            clock,
            engine,
            token,
            other,
            served,
            stop: Some(stop),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), &self.token).unwrap()
    }

    pub(crate) fn client_of_other_team(&self) -> Client {
        Client::new(&format!("http://{}", self.address), &self.other).unwrap()
    }

    /// Sends a call with the team's token.
    pub(crate) async fn call(&self, call: Call) -> Answer {
        call.token(&self.token).send(self.address).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Call::get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Call::post(path, body)).await
    }

    /// A task with a queued run.
    pub(crate) async fn queued(&self) -> (TaskId, RunId) {
        let created = self
            .client()
            .create_task(&CreateTask::new("do it"), None)
            .await
            .unwrap();
        (created.task.id, created.run.unwrap().id)
    }

    /// A run that a worker holds and that may act.
    pub(crate) async fn running(&self) -> (Run, Lease) {
        self.queued().await;
        let claim = self.store.claim(self.clock.now()).await.unwrap().unwrap();
        let (run, _) = self
            .store
            .step(claim.run.id, Some(claim.lease), RunInput::Provisioned, self.clock.now())
            .await
            .unwrap();
        (run, claim.lease)
    }

    /// Appends so many events to a run.
    pub(crate) async fn say(&self, run: RunId, lease: Lease, count: usize) {
        let events =
            (0..count).map(|n| NewEvent::new(EventType::MessageDelta, json!({ "text": format!("part {n}\n") })));
        self.store
            .append(run, lease, events.collect(), self.clock.now())
            .await
            .unwrap();
        stockade_ports::Bus::publish(&*self.bus, stockade_ports::Topic::Run(run)).await;
    }

    /// Ends a run as failed.
    pub(crate) async fn fail(&self, run: RunId, lease: Lease) {
        let failure = RunInput::Fail(Failure::terminal("test", "over"));
        self.store
            .step(run, Some(lease), failure, self.clock.now())
            .await
            .unwrap();
        stockade_ports::Bus::publish(&*self.bus, stockade_ports::Topic::Run(run)).await;
    }

    /// An approval that waits in a running run.
    pub(crate) async fn pending(&self, kind: ActionKind) -> Approval {
        let (run, lease) = self.running().await;
        self.hold(&run, lease, kind, "git push").await
    }

    pub(crate) async fn hold(&self, run: &Run, lease: Lease, kind: ActionKind, command: &str) -> Approval {
        let request = AdmitRequest {
            id: ActionId::from_uuid(self.clock.uuid()),
            run: run.id,
            fence: lease.fence,
            action: Action {
                kind,
                operation: "bash".to_owned(),
                target: command.to_owned(),
                args: json!({ "command": command }),
            },
            policy: PolicyVerdict {
                verdict: Verdict::Hold,
                rule: "ask".to_owned(),
                reason: "a test asks".to_owned(),
            },
            policy_version: run.spec.policy_version,
            reserve: Amounts::ZERO,
            approval_id: ApprovalId::from_uuid(self.clock.uuid()),
            now: self.clock.now(),
            trace: None,
        };
        self.store.admit(request).await.unwrap().approval.unwrap()
    }
}

/// Keeps a token of a team and gives its secret.
pub(crate) async fn keep_token(store: &dyn Store, clock: &dyn Clock, team: TeamId, name: &str) -> String {
    let secret = mint_token().unwrap();
    let record = TokenRecord {
        id: TokenId::from_uuid(clock.uuid()),
        team,
        name: name.to_owned(),
        secret_sha256: hash_token(&secret),
        created_at: clock.now(),
        expires_at: None,
        revoked_at: None,
    };
    store.put_token(record).await.unwrap();
    secret
}

/// The events of an event stream's text, by the rules a browser follows.
pub(crate) fn told(text: &str) -> Vec<(String, String, Value)> {
    let mut parser = stockade_api::sse::SseParser::new(1 << 20);
    let messages = parser.push(text.as_bytes()).unwrap();
    messages
        .into_iter()
        .map(|m| {
            (
                m.id.unwrap_or_default(),
                m.event,
                serde_json::from_str(&m.data).unwrap(),
            )
        })
        .collect()
}

/// The agents of a catalogue by name, for tests that change one.
pub(crate) fn agents_of(specs: impl IntoIterator<Item = AgentSpec>) -> BTreeMap<String, AgentSpec> {
    specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect()
}
