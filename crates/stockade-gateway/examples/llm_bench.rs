//! What the model gateway adds to a call: `llm_bench ROUNDS` prints one line of JSON.
//!
//! Both sides call the same local server that speaks Anthropic Messages, with the same
//! client and body, alternating. `direct` is the provider alone; `gateway` is the request as
//! it leaves a sandbox: identity, policy, budget and event on a real store (SQLite,
//! `synchronous=FULL`), metering, settlement.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::post};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use stockade_bus::InProcessBus;
use stockade_domain::{
    AgentKind, AgentSpec, BudgetLimits, Environment, Limits, LimitsPatch, NetworkLevel, RunId, RunInput, RunSpec,
    SnapshotPlan, TaskId, TeamId, Wire,
};
use stockade_gate::{
    Gate, Gated, kind,
    model::{ModelDoor, PriceTable},
};
use stockade_gateway::llm::{LLM_HOST, LlmGateway};
use stockade_model::{UpstreamConfig, UpstreamKind, UpstreamProvider};
use stockade_policy::Policy;
use stockade_ports::{
    Clock, CreateRun, CreateTask, Internal, InternalBody, ModelProvider, ModelRequest, RunIdentity, Store, SystemClock,
};
use stockade_store::SqliteStore;

const BODY: &str = r#"{"model":"bench","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}"#;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let line = runtime.block_on(measure(rounds));
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn measure(rounds: usize) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let provider = provider(&upstream().await);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path().join("bench.db")).await.expect("a store"));
    let gate = Gate::new(
        Arc::clone(&store),
        Arc::new(InProcessBus::default()),
        Arc::new(SystemClock),
    );
    let behind = Gated::<kind::Model, dyn ModelProvider>::new(Arc::clone(&provider));
    let gateway = LlmGateway::new(ModelDoor::new(gate, behind, PriceTable::free()));
    let identity = claimed_run(store.as_ref()).await;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..rounds + 10 {
        let bare = timed(call_directly(provider.as_ref())).await;
        let gated = timed(call_through(&gateway, identity)).await;
        // The first calls open connections and fill caches.
        if round >= 10 {
            direct.push(bare);
            through.push(gated);
        }
    }
    json!({
        "samples": { "direct": direct, "gateway": through },
        "notes": ["a call through the gateway is two transactions, each synced to disk before it goes on"],
    })
}

async fn timed(call: impl Future<Output = ()>) -> f64 {
    let started = Instant::now();
    call.await;
    started.elapsed().as_secs_f64() * 1000.0
}

async fn call_directly(provider: &dyn ModelProvider) {
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    let request = ModelRequest {
        wire: Wire::AnthropicMessages,
        query: None,
        headers,
        body: Bytes::from_static(BODY.as_bytes()),
    };
    let mut answer = provider.call(request).await.expect("an answer");
    assert!(answer.status.is_success());
    while let Some(piece) = answer.body.next().await {
        piece.expect("a whole answer");
    }
}

async fn call_through(gateway: &LlmGateway, identity: RunIdentity) {
    let body = Full::new(Bytes::from_static(BODY.as_bytes()));
    let body: InternalBody = body.map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::post(format!("http://{LLM_HOST}/v1/messages"))
        .header("content-type", "application/json")
        .body(body)
        .expect("a request");
    let answer = gateway.call(identity, LLM_HOST, request).await;
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.into_body().collect().await.expect("a whole answer");
}

/// A local server that answers like Anthropic Messages.
async fn upstream() -> String {
    let answer = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "bench",
        "content": [{ "type": "text", "text": "hello" }], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 10, "output_tokens": 2 },
    });
    let app = Router::new().route("/v1/messages", post(move || async move { Json(answer) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn provider(url: &str) -> Arc<dyn ModelProvider> {
    let config = UpstreamConfig {
        name: "bench".to_owned(),
        kind: UpstreamKind::Anthropic,
        base_url: url.to_owned(),
        api_key: None,
        idle_timeout: Duration::from_secs(10),
    };
    Arc::new(UpstreamProvider::new(config).expect("a provider"))
}

async fn claimed_run(store: &dyn Store) -> RunIdentity {
    let clock = SystemClock;
    let agent = AgentSpec {
        name: "bench".into(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: Vec::new(),
        limits: LimitsPatch::default(),
    };
    let environment = Environment::named("bench", NetworkLevel::None);
    let spec = RunSpec {
        prompt: "bench".into(),
        repo: None,
        policy_version: Policy::compile(&agent, &environment).expect("a policy").version(),
        agent,
        environment,
        model: "bench".into(),
        backend: "native".into(),
        snapshot: SnapshotPlan::default(),
        git_host: None,
        publish: None,
        limits: Limits {
            budget: BudgetLimits::default(),
            ..Limits::default()
        },
    };
    let run = RunId::from_uuid(clock.uuid());
    let task = CreateTask {
        id: TaskId::from_uuid(clock.uuid()),
        team: TeamId::DEFAULT,
        prompt: "bench".into(),
        repo: None,
        run: Some(CreateRun { id: run, spec }),
        idempotency_key: None,
        now: clock.now(),
    };
    store.create_task(task).await.expect("created");
    let lease = store.claim(clock.now()).await.expect("an answer").expect("a run").lease;
    store
        .step(run, Some(lease), RunInput::Provisioned, clock.now())
        .await
        .expect("a step");
    RunIdentity { run, lease }
}
