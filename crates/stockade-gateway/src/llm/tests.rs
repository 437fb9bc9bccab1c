use std::{convert::Infallible, sync::Mutex};

use futures::{StreamExt, channel::mpsc, stream};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use stockade_domain::{
    ActionKind, BudgetLimits, EventType, Limits, Rule, RuleMatch, RuleVerdict, RunId, RunInput, TaskId, TeamId,
};
use stockade_gate::{Gate, Gated, kind, model::PriceTable};
use stockade_policy::Policy;
use stockade_ports::{
    Clock, CreateRun, CreateTask, Lease, ManualClock, ModelError, ModelProvider, ModelResponse, Store,
    sim::{MemoryStore, RecordingBus, samples},
};
use uuid::Uuid;

use super::*;

type Pieces = mpsc::UnboundedReceiver<Result<Bytes, ModelError>>;

/// Keeps what it is asked and answers with a channel, or with what it was asked.
#[derive(Default)]
struct Provider {
    asked: Mutex<Vec<ModelRequest>>,
    pieces: Mutex<Option<Pieces>>,
}

#[async_trait]
impl ModelProvider for Provider {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn wires(&self) -> &[Wire] {
        &[Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses]
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let echo = request.body.clone();
        self.asked.lock().unwrap().push(request);
        let pieces = self.pieces.lock().unwrap().take();
        let (kind, body) = match pieces {
            Some(pieces) => ("text/event-stream", pieces.boxed()),
            None => ("application/json", stream::once(async { Ok(echo) }).boxed()),
        };
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Ok(ModelResponse {
            status: StatusCode::OK,
            headers,
            body,
        })
    }
}

struct Installation {
    store: Arc<MemoryStore>,
    provider: Arc<Provider>,
    gateway: LlmGateway,
    identity: RunIdentity,
}

impl Installation {
    async fn start() -> Self {
        Self::with(LlmConfig::default(), BudgetLimits::default(), None).await
    }

    async fn with(config: LlmConfig, budget: BudgetLimits, rule: Option<Rule>) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::at(1_000_000));
        let run = RunId::from_uuid(Uuid::from_u128(1));
        let mut spec = samples::spec(Limits {
            budget,
            ..Limits::default()
        });
        spec.agent.rules.extend(rule);
        spec.policy_version = Policy::compile(&spec.agent, &spec.environment).unwrap().version();
        let task = CreateTask {
            id: TaskId::from_uuid(Uuid::from_u128(2)),
            team: TeamId::DEFAULT,
            prompt: "go".into(),
            repo: None,
            run: Some(CreateRun { id: run, spec }),
            idempotency_key: None,
            now: clock.now(),
        };
        store.create_task(task).await.unwrap();
        let lease = store.claim(clock.now()).await.unwrap().unwrap().lease;
        store
            .step(run, Some(lease), RunInput::Provisioned, clock.now())
            .await
            .unwrap();
        let gate = Gate::new(store.clone(), Arc::new(RecordingBus::default()), clock);
        let provider = Arc::new(Provider::default());
        let gated = Gated::<kind::Model, dyn ModelProvider>::new(provider.clone());
        let door = ModelDoor::new(gate, gated, PriceTable::builtin());
        Self {
            store,
            provider,
            gateway: LlmGateway::with_config(door, config),
            identity: RunIdentity { run, lease },
        }
    }

    async fn ask(&self, request: InternalRequest) -> (StatusCode, HeaderMap, String) {
        let response = self.gateway.call(self.identity, LLM_HOST, request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, HeaderMap, String) {
        self.ask(request(&Method::POST, path, body)).await
    }

    fn asked(&self) -> Vec<ModelRequest> {
        self.provider.asked.lock().unwrap().clone()
    }
}

fn request(method: &Method, path: &str, body: &str) -> InternalRequest {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never: Infallible| match never {});
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer made-up")
        .header("x-api-key", "made-up")
        .header("anthropic-beta", "one,two")
        .body(body.boxed_unsync())
        .unwrap()
}

const ROUTES: [(&str, Wire); 3] = [
    ("/v1/messages?beta=true", Wire::AnthropicMessages),
    ("/any/prefix/v1/chat/completions?beta=true", Wire::OpenaiChat),
    ("/responses?beta=true", Wire::OpenaiResponses),
];

#[tokio::test]
async fn a_body_of_tomorrow_passes_byte_for_byte_on_every_wire() {
    let i = Installation::start().await;
    let body = "{ \"model\":\"scripted\",\"x_new\" : {\"deep\":[1.50,null,\"\\u00fc\"]},\"max_tokens\":5,\"max_tokens_2\":1e2 }";
    for (path, wire) in ROUTES {
        let (status, headers, answer) = i.post(path, body).await;
        assert_eq!((status, answer.as_str()), (StatusCode::OK, body));
        assert!(
            headers["x-stockade-overhead-ms"]
                .to_str()
                .unwrap()
                .parse::<f64>()
                .unwrap()
                >= 0.0
        );
        let asked = i.asked().pop().unwrap();
        assert_eq!(
            (asked.wire, asked.query.as_deref(), asked.body.as_ref()),
            (wire, Some("beta=true"), body.as_bytes())
        );
        assert_eq!(asked.headers["anthropic-beta"], "one,two");
        assert!(!asked.headers.contains_key("authorization") && !asked.headers.contains_key("x-api-key"));
    }
}

#[tokio::test]
async fn other_models_are_mapped_unless_told_otherwise() {
    let sent = |name: &str| format!("{{\"temperature\":0.70, \"model\":\"{name}\"}}");
    let i = Installation::start().await;
    i.post("/v1/responses", &sent("gpt-5.6-luna")).await;
    assert_eq!(i.asked()[0].body, sent("scripted"));
    let config = LlmConfig {
        model_aliases: BTreeMap::from([("haiku".to_owned(), "small".to_owned())]),
        map_unknown_models: false,
        ..LlmConfig::default()
    };
    let i = Installation::with(config, BudgetLimits::default(), None).await;
    i.post("/v1/responses", &sent("haiku")).await;
    i.post("/v1/responses", &sent("gpt-5.6-luna")).await;
    let bodies: Vec<Bytes> = i.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [sent("small"), sent("gpt-5.6-luna")]);
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece() {
    let i = Installation::start().await;
    let (sender, pieces) = mpsc::unbounded();
    *i.provider.pieces.lock().unwrap() = Some(pieces);
    let asked = request(
        &Method::POST,
        "/v1/messages",
        r#"{"model":"scripted","stream":true,"max_tokens":1}"#,
    );
    let response = i.gateway.call(i.identity, LLM_HOST, asked).await;
    let mut body = response.into_body().into_data_stream();
    for text in ["event: ping\n", "data: {}\n\n"] {
        sender.unbounded_send(Ok(Bytes::from(text))).unwrap();
        assert_eq!(
            body.next().await.unwrap().unwrap(),
            text,
            "each piece comes before the next exists"
        );
    }
    drop(sender);
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn each_wire_is_refused_in_its_own_words() {
    let rule = Rule {
        id: "no-models".into(),
        when: RuleMatch {
            kind: Some(ActionKind::Model),
            ..RuleMatch::default()
        },
        verdict: RuleVerdict::Deny,
        reason: "because".into(),
    };
    let denied = Installation::with(LlmConfig::default(), BudgetLimits::default(), Some(rule)).await;
    let budget = BudgetLimits {
        model_requests: Some(0),
        ..BudgetLimits::default()
    };
    let poor = Installation::with(LlmConfig::default(), budget, None).await;
    for (path, wire) in ROUTES {
        for (i, kind) in [(&denied, "permission_error"), (&poor, "budget_exceeded")] {
            let (status, headers, text) = i.post(path, r#"{"model":"scripted"}"#).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(!headers.contains_key("retry-after"));
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(body["error"]["type"], kind);
            assert_eq!(body["type"] == "error", wire == Wire::AnthropicMessages);
        }
    }
    assert!(denied.asked().is_empty() && poor.asked().is_empty());
}

#[tokio::test]
async fn nonsense_is_a_bad_request_and_reaches_nobody() {
    let i = Installation::start().await;
    for body in ["", "{", "[]", "{}", r#"{"model":"a","model":"b"}"#] {
        let (status, _, text) = i.post("/v1/messages", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(text.contains("invalid_request_error"), "{text}");
    }
    assert!(i.asked().is_empty());
    assert!(i.store.actions(i.identity.run).await.unwrap().is_empty());
}

#[tokio::test]
async fn large_and_slow_bodies_are_refused() {
    let config = LlmConfig {
        body_bytes: 64,
        body_timeout: Duration::from_millis(50),
        ..LlmConfig::default()
    };
    let i = Installation::with(config, BudgetLimits::default(), None).await;
    let fits = format!("{{\"model\":\"scripted\",\"x\":\"{}\"}}", "y".repeat(30));
    assert_eq!(i.post("/v1/messages", &fits).await.0, StatusCode::OK);
    let (status, _, text) = i.post("/v1/messages", &fits.repeat(2)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
    let mut announced = request(&Method::POST, "/v1/messages", &fits);
    announced
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("65"));
    assert_eq!(i.ask(announced).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let mut slow = request(&Method::POST, "/v1/messages", "");
    let never = stream::pending::<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>();
    *slow.body_mut() = StreamBody::new(never).boxed_unsync();
    assert_eq!(i.ask(slow).await.0, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(i.asked().len(), 1);
}

#[tokio::test]
async fn the_small_questions_of_clients_are_answered_without_a_model() {
    let i = Installation::start().await;
    for (method, path) in [
        (Method::HEAD, "/"),
        (Method::HEAD, "/api/hello"),
        (Method::GET, "/api/hello"),
    ] {
        assert_eq!(
            i.ask(request(&method, path, "")).await.0,
            StatusCode::OK,
            "{method} {path}"
        );
    }
    let (_, _, models) = i.ask(request(&Method::GET, "/v1/models", "")).await;
    assert_eq!(
        serde_json::from_str::<Value>(&models).unwrap()["data"][0]["id"],
        "scripted"
    );
    let mut socket = request(&Method::GET, "/v1/responses", "");
    socket
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    assert_eq!(i.ask(socket).await.0, StatusCode::UPGRADE_REQUIRED);
    let (status, _, count) = i.post("/v1/messages/count_tokens", r#"{"messages":[]}"#).await;
    assert_eq!((status, count.as_str()), (StatusCode::OK, r#"{"input_tokens":4}"#));
    let (status, _, unknown) = i.post("/v1/embeddings", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(unknown.contains("not_found_error"));
    assert_eq!(
        i.ask(request(&Method::PUT, "/v1/messages", "")).await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(i.asked().is_empty());
}

#[tokio::test]
async fn without_a_store_and_with_an_old_hold_nobody_is_answered() {
    let i = Installation::start().await;
    let good = r#"{"model":"scripted"}"#;
    assert_eq!(i.post("/v1/messages", good).await.0, StatusCode::OK, "positive control");
    i.store.unavailable(true);
    assert_eq!(i.post("/v1/messages", good).await.0, StatusCode::SERVICE_UNAVAILABLE);
    i.store.unavailable(false);
    let mut old = i;
    old.identity.lease = Lease {
        fence: old.identity.lease.fence + 1,
    };
    assert_eq!(old.post("/v1/messages", good).await.0, StatusCode::BAD_REQUEST);
    old.identity.run = RunId::from_uuid(Uuid::from_u128(99));
    assert_eq!(old.post("/v1/messages", good).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(old.asked().len(), 1);
}

#[tokio::test]
async fn a_call_is_an_event_with_the_model_that_was_asked() {
    let i = Installation::start().await;
    i.post("/v1/messages", r#"{"model":"some-haiku","max_tokens":1}"#).await;
    let events = i.store.events(i.identity.run, 0, 100).await.unwrap();
    let call = events.iter().find(|event| event.kind == EventType::ModelCall).unwrap();
    assert_eq!(call.data["details"]["model"], "scripted");
    assert_eq!(call.data["target"], "scripted");
}
