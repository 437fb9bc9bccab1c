//! Introduces adapters to roles. Nothing here decides; nothing else here knows both sides.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use stockade_bus::InProcessBus;
use stockade_domain::{
    AgentKind, AgentSpec, Failure, FailureClass, HarnessProfile, RepoSpec, RunId, TeamId, TokenId, Wire,
};
use stockade_engine::{EmbeddedEngine, EngineConfig, release_abandoned};
use stockade_gate::{
    Gate, Gated, kind,
    model::{ModelDoor, PriceTable},
};
use stockade_gateway::{Catalog, Gateway, GatewayParts, HttpLimits, RepoProbe, llm::LlmGateway};
use stockade_guard::{Guard, GuardConfig};
use stockade_model::{
    RecordingProvider, ReplayProvider, Script, ScriptedProvider, UpstreamConfig, UpstreamKind, UpstreamProvider,
};
use stockade_ports::{
    Bus, Clock, Engine, GitHosts, ModelError, ModelProvider, ModelRequest, ModelResponse, Secrets, Store, SystemClock,
    TokenRecord,
};
use stockade_runner::{Runner, RunnerConfig, RunnerParts};
use stockade_store::SqliteStore;
use stockade_vault::Vault;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    backends,
    exit::Complaint,
    git_access::OperatorsHosts,
    keys, production,
    settings::{Provider, Settings},
    yaml,
};

/// Which roles a process takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of them; the only process that drives the runs of its store.
    Everything,
    /// Only the API over the store, beside or without a process that drives runs.
    Desk,
}

/// A server with everything behind it.
pub(crate) struct Server {
    url: String,
    token: String,
    engine: Arc<dyn Engine>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts a server. Whatever is missing is an error here, before anything is accepted.
    pub(crate) async fn start(settings: Settings, role: Role) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await.map_err(|e| {
            Complaint::unavailable(format!("cannot listen on {}: {e}", settings.listen))
                .hint("choose another address with --listen")
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        let base = Base::open(&settings).await?;
        let token = base.operator_token(&settings).await?;
        let provider = provider(&settings)?;
        let catalog = catalog(&settings, provider.as_deref())?;
        let engine = match role {
            Role::Everything => drive(&base, &settings, provider).await?,
            Role::Desk => {
                let config = EngineConfig::new(settings.state_dir.join("engine.lock"));
                let released = release_abandoned(&*base.store, &*base.bus, &*base.clock, &config).await;
                released.map_err(|e| Complaint::unavailable(e.to_string()))?;
                Arc::new(NoEngine)
            }
        };
        let gateway = Gateway::new(GatewayParts {
            store: Arc::clone(&base.store),
            secrets: Arc::clone(&base.secrets),
            bus: Arc::clone(&base.bus),
            clock: Arc::clone(&base.clock),
            engine: Arc::clone(&engine),
            catalog,
            repo_probe: Arc::new(GitProbe(runner_config(&settings))),
            limits: HttpLimits::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            if let Err(error) = gateway.serve(listener, shutdown).await {
                tracing::error!(%error, "the API has stopped");
            }
        });
        Ok(Self {
            url,
            token,
            engine,
            stop,
            serving,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Lets go of runs in hand, then of the API.
    pub(crate) async fn stop(self) {
        self.engine.shutdown().await;
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(Duration::from_secs(3), self.serving).await;
    }
}

/// What every role stands on.
pub(crate) struct Base {
    store: Arc<dyn Store>,
    pub(crate) secrets: Arc<dyn Secrets>,
    bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Base {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let path = settings.state_dir.join("stockade.db");
        let store = SqliteStore::open(&path).await.map_err(|e| {
            Complaint::unavailable(format!("cannot open the store {}: {e}", path.display()))
                .hint("check the disk and who owns the state directory")
        })?;
        let store: Arc<dyn Store> = Arc::new(store);
        let in_use = !store.secrets(TeamId::DEFAULT).await?.is_empty();
        let key = keys::secrets_key(&settings.state_dir, &settings.secrets_key, in_use)?;
        Ok(Self {
            secrets: Arc::new(Vault::new(Arc::clone(&store), key)),
            store,
            bus: Arc::new(InProcessBus::default()),
            clock: Arc::new(SystemClock),
        })
    }

    /// The token the CLI uses, made at first start.
    async fn operator_token(&self, settings: &Settings) -> anyhow::Result<String> {
        if let Some(secret) = keys::operator_token(&settings.state_dir)? {
            let known = self.store.token_by_digest(&stockade_gateway::hash_token(&secret)).await;
            if known.is_ok_and(|record| record.revoked_at.is_none()) {
                return Ok(secret);
            }
        }
        let secret = stockade_gateway::mint_token()?;
        let record = TokenRecord {
            id: TokenId::from_uuid(self.clock.uuid()),
            team: TeamId::DEFAULT,
            name: settings.operator.clone(),
            secret_sha256: stockade_gateway::hash_token(&secret),
            created_at: self.clock.now(),
            expires_at: None,
            revoked_at: None,
        };
        self.store.put_token(record).await?;
        keys::keep_operator_token(&settings.state_dir, &secret)?;
        Ok(secret)
    }
}

/// Sandboxes, guard, runner and engine behind one gate.
async fn drive(
    base: &Base,
    settings: &Settings,
    provider: Option<Arc<dyn ModelProvider>>,
) -> anyhow::Result<Arc<dyn Engine>> {
    production::insist(settings).await?;
    let gate = Gate::new(Arc::clone(&base.store), Arc::clone(&base.bus), Arc::clone(&base.clock));
    let provider = provider.unwrap_or_else(|| Arc::new(NoModel));
    let door = ModelDoor::new(
        gate.clone(),
        Gated::<kind::Model, dyn ModelProvider>::new(provider),
        prices(settings),
    );
    let internal = Arc::new(LlmGateway::new(door.clone()));
    let guard = Guard::new(
        gate.clone(),
        internal,
        GuardConfig {
            nameservers: settings.nameservers.clone(),
            extra_roots: settings.certificate_authorities.clone(),
            ..GuardConfig::default()
        },
    )
    .map_err(|e| Complaint::unavailable(e.to_string()))?
    .with_secrets(Arc::clone(&base.secrets));
    let runner = Runner::new(RunnerParts {
        gate,
        backends: backends::all(settings)?,
        images: Some(backends::images(settings)),
        egress: Arc::new(guard),
        git_hosts: Some(Gated::<kind::Credential, dyn GitHosts>::new(Arc::new(
            OperatorsHosts::new(base, settings),
        ))),
        door,
        sealer: keys::signing_key(&settings.state_dir)?,
        config: runner_config(settings),
    });
    let engine = EmbeddedEngine::start(
        Arc::clone(&base.store),
        Arc::clone(&base.bus),
        Arc::clone(&base.clock),
        Arc::new(runner),
        EngineConfig {
            // A run that waits for a person keeps its sandbox and its place.
            max_concurrent: 16,
            ..EngineConfig::new(settings.state_dir.join("engine.lock"))
        },
    )
    .await
    .map_err(|e| Complaint::unavailable(e.to_string()))?;
    Ok(engine)
}

/// List prices and those of the configuration; models that nobody bills are free.
fn prices(settings: &Settings) -> PriceTable {
    let table = match settings.provider {
        Some(Provider::Scripted { .. } | Provider::Replay { .. }) => PriceTable::free(),
        _ => PriceTable::builtin(),
    };
    let lines = settings
        .prices
        .iter()
        .filter_map(|(prefix, line)| Some((prefix, line.price()?)));
    lines.fold(table, |table, (prefix, price)| table.with(prefix, price))
}

fn provider(settings: &Settings) -> anyhow::Result<Option<Arc<dyn ModelProvider>>> {
    let Some(chosen) = &settings.provider else {
        return Ok(None);
    };
    let upstream = |name: &str, kind, url: &str, key: &secrecy::SecretString| {
        let config = UpstreamConfig {
            name: name.to_owned(),
            kind,
            base_url: url.to_owned(),
            api_key: Some(key.clone()),
            idle_timeout: Duration::from_secs(600),
        };
        UpstreamProvider::new(config).map_err(|e| Complaint::usage(e.to_string()))
    };
    let provider: Arc<dyn ModelProvider> = match chosen {
        Provider::Anthropic { url, key } => Arc::new(upstream("anthropic", UpstreamKind::Anthropic, url, key)?),
        Provider::Openai { url, key } => Arc::new(upstream("openai", UpstreamKind::Openai, url, key)?),
        Provider::Scripted { file } => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| Complaint::usage(format!("cannot read {}: {e}", file.display())))?;
            let script = Script::parse(&text)
                .map_err(|e| Complaint::usage(format!("{}:{}:{}: {}", file.display(), e.line, e.column, e.message)))?;
            Arc::new(ScriptedProvider::new(script))
        }
        Provider::Replay { dir } => Arc::new(ReplayProvider::open(dir).map_err(|e| Complaint::usage(e.to_string()))?),
    };
    Ok(Some(match &settings.record {
        Some(dir) => Arc::new(RecordingProvider::new(provider, dir).map_err(|e| Complaint::usage(e.to_string()))?),
        None => provider,
    }))
}

/// Built-in agents and those of the configuration, by name.
pub(crate) fn agents(settings: &Settings) -> Result<BTreeMap<String, AgentSpec>, Complaint> {
    let mut agents = BTreeMap::new();
    for (name, text) in stockade_runner::profiles() {
        let spec: AgentSpec = yaml::parse(text, name)?;
        agents.insert(spec.name.clone(), spec);
    }
    agents.extend(settings.agents.iter().map(|spec| (spec.name.clone(), spec.clone())));
    Ok(agents)
}

fn catalog(settings: &Settings, provider: Option<&dyn ModelProvider>) -> anyhow::Result<Catalog> {
    let agents_dir = settings.agents_dir.clone();
    let wires = provider.map(|p| p.wires().to_vec()).unwrap_or_default();
    Ok(Catalog {
        agents: agents(settings)?,
        environments: settings
            .environments
            .iter()
            .map(|e| (e.name.clone(), e.clone()))
            .collect(),
        default_agent: settings.default_agent.clone(),
        default_environment: settings.default_environment.clone(),
        default_model: settings.model.clone(),
        provider: provider.map(|p| p.name().to_owned()),
        wires,
        backends: settings.sandbox.backends.clone(),
        git_hosts: settings.git.hosts.clone(),
        limits: settings.limits,
        backend_check: backends::check(settings)?,
        agent_check: Arc::new(move |spec: &AgentSpec| match &spec.kind {
            AgentKind::Harness(profile) => installed(profile, &agents_dir),
            AgentKind::Builtin { .. } => Ok(()),
        }),
    })
}

/// Whether a harness is installed, and how to install it where it is not.
pub(crate) fn installed(profile: &HarnessProfile, dir: &Path) -> Result<(), Failure> {
    stockade_runner::installed(profile, dir)
        .map_err(|missing| Failure::terminal("agent_not_installed", missing.to_string()).with_hint(missing.install))
}

fn runner_config(settings: &Settings) -> RunnerConfig {
    RunnerConfig {
        agents_dir: Some(settings.agents_dir.clone()),
        ..RunnerConfig::new(settings.state_dir.clone())
    }
}

/// Looks at a repository before a run is created for it.
struct GitProbe(RunnerConfig);

#[async_trait]
impl RepoProbe for GitProbe {
    async fn check(&self, repo: &RepoSpec) -> Result<(), Failure> {
        stockade_runner::check_repo(&self.0, repo).await
    }
}

/// The engine of a desk: somebody else drives, and finds out by looking at the store.
struct NoEngine;

#[async_trait]
impl Engine for NoEngine {
    async fn wake(&self, _run: RunId) {}
    async fn shutdown(&self) {}
}

/// The provider of an installation without a model. Runs are refused before they reach it.
pub(crate) struct NoModel;

#[async_trait]
impl ModelProvider for NoModel {
    fn name(&self) -> &str {
        "none"
    }

    fn wires(&self) -> &[Wire] {
        &[]
    }

    async fn call(&self, _request: ModelRequest) -> Result<ModelResponse, ModelError> {
        Err(ModelError {
            provider: "none".to_owned(),
            message: "no model is configured".to_owned(),
            class: FailureClass::Terminal,
        })
    }
}
