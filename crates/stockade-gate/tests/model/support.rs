//! A claimed run, and a provider that answers as told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, channel::mpsc, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use stockade_domain::{
    ActionKind, ActionRecord, Amounts, ApprovalDecision, ApprovalState, BudgetLimits, Decision, EventType,
    FailureClass, Limits, Rule, RuleMatch, RuleVerdict, RunId, RunInput, TaskId, TeamId, Wire,
};
use stockade_gate::{
    Gate, Gated, Scope, kind,
    model::{ModelDoor, PriceTable},
};
use stockade_policy::Policy;
use stockade_ports::{
    Clock, CreateRun, CreateTask, ManualClock, ModelError, ModelProvider, ModelRequest, ModelResponse, Store,
    sim::{MemoryStore, RecordingBus, samples},
};
use uuid::Uuid;

pub(crate) struct Installation {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) door: ModelDoor,
    pub(crate) scope: Scope,
    clock: Arc<ManualClock>,
    run: RunId,
}

impl Installation {
    /// A running run with this budget; with a verdict, one rule gives it to every model call.
    pub(crate) async fn start(budget: BudgetLimits, verdict: Option<&str>, answer: Answer) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::at(1_000_000));
        let run = RunId::from_uuid(Uuid::from_u128(1));
        let mut spec = samples::spec(Limits {
            budget,
            ..Limits::default()
        });
        spec.agent.rules.extend(verdict.map(rule));
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
        let claim = store.claim(clock.now()).await.unwrap().unwrap();
        let provisioned = RunInput::Provisioned;
        let (row, _) = store
            .step(run, Some(claim.lease), provisioned, clock.now())
            .await
            .unwrap();
        let gate = Gate::new(store.clone(), Arc::new(RecordingBus::default()), clock.clone());
        let provider = Arc::new(Provider {
            answer: Mutex::new(Some(answer)),
            requests: Mutex::default(),
        });
        let gated = Gated::<kind::Model, dyn ModelProvider>::new(provider.clone());
        Self {
            store,
            provider,
            door: ModelDoor::new(gate, gated, PriceTable::builtin()),
            scope: Scope::of(&row, claim.lease).unwrap(),
            clock,
            run,
        }
    }

    pub(crate) async fn used(&self) -> Amounts {
        self.store.run(None, self.run).await.unwrap().budget.used
    }

    pub(crate) async fn reserved(&self) -> Amounts {
        self.store.run(None, self.run).await.unwrap().budget.reserved
    }

    pub(crate) async fn actions(&self) -> Vec<ActionRecord> {
        self.store.actions(self.run).await.unwrap()
    }

    /// Waits until so many calls are settled.
    pub(crate) async fn settled(&self, calls: usize) {
        let wait = async {
            while self.actions().await.iter().filter(|a| a.settled_at.is_some()).count() < calls {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("settled in time");
    }

    /// Approves the first question.
    pub(crate) async fn approve(&self) {
        let pending = loop {
            let open = self
                .store
                .approvals(None, Some(self.run), Some(ApprovalState::Pending), 1)
                .await
                .unwrap();
            match open.into_iter().next() {
                Some(approval) => break approval,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        let decision = ApprovalDecision {
            decision: Decision::Approve,
            by: "ada".into(),
            reason: None,
            edited_args: None,
        };
        self.store
            .decide(TeamId::DEFAULT, pending.id, decision, self.clock.now())
            .await
            .unwrap();
    }
}

/// The data of every `model.call` event.
pub(crate) async fn events_of(installation: &Installation) -> Vec<Value> {
    let events = installation.store.events(installation.run, 0, 10_000).await.unwrap();
    let calls = events.into_iter().filter(|event| event.kind == EventType::ModelCall);
    calls.map(|event| event.data).collect()
}

fn rule(verdict: &str) -> Rule {
    Rule {
        id: "models".into(),
        when: RuleMatch {
            kind: Some(ActionKind::Model),
            ..RuleMatch::default()
        },
        verdict: if verdict == "ask" {
            RuleVerdict::Ask
        } else {
            RuleVerdict::Deny
        },
        reason: "because".into(),
    }
}

/// What the provider answers.
pub(crate) enum Answer {
    Whole(StatusCode, HeaderMap, Bytes),
    Pieces(mpsc::UnboundedReceiver<Result<Bytes, ModelError>>),
    Fails(FailureClass),
}

impl Answer {
    pub(crate) fn whole(status: u16, mut headers: HeaderMap, body: &str) -> Self {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self::Whole(
            StatusCode::from_u16(status).unwrap(),
            headers,
            Bytes::copy_from_slice(body.as_bytes()),
        )
    }

    pub(crate) fn stream(body: &Bytes) -> Self {
        Self::Whole(StatusCode::OK, event_stream(), body.clone())
    }

    pub(crate) fn channel() -> (mpsc::UnboundedSender<Result<Bytes, ModelError>>, Self) {
        let (sender, receiver) = mpsc::unbounded();
        (sender, Self::Pieces(receiver))
    }
}

pub(crate) struct Provider {
    answer: Mutex<Option<Answer>>,
    requests: Mutex<Vec<ModelRequest>>,
}

impl Provider {
    pub(crate) fn requests(&self) -> Vec<ModelRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[async_trait]
impl ModelProvider for Provider {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn wires(&self) -> &[Wire] {
        &[Wire::AnthropicMessages, Wire::OpenaiChat]
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        self.requests.lock().unwrap().push(request);
        tokio::task::yield_now().await;
        let mut answer = self.answer.lock().unwrap();
        if let Some(Answer::Whole(status, headers, body)) = &*answer {
            let body = body.clone();
            return Ok(ModelResponse {
                status: *status,
                headers: headers.clone(),
                body: stream::once(async move { Ok(body) }).boxed(),
            });
        }
        match answer.take() {
            Some(Answer::Pieces(pieces)) => Ok(ModelResponse {
                status: StatusCode::OK,
                headers: event_stream(),
                body: pieces.boxed(),
            }),
            Some(Answer::Fails(class)) => Err(broken(class)),
            _ => panic!("asked once too often"),
        }
    }
}

pub(crate) fn broken(class: FailureClass) -> ModelError {
    ModelError {
        provider: "simulated".into(),
        message: "as told".into(),
        class,
    }
}

fn event_stream() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))])
}

/// A streamed Chat answer that used so many tokens.
pub(crate) fn chat(input: u64, output: u64) -> Bytes {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}});
    Bytes::from(format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}}}}]}}\n\ndata: {usage}\n\ndata: [DONE]\n\n"
    ))
}

pub(crate) fn request(wire: Wire, body: &str) -> ModelRequest {
    ModelRequest {
        wire,
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub(crate) async fn collect(response: ModelResponse) -> Result<Bytes, ModelError> {
    let pieces: Vec<Bytes> = response.body.try_collect().await?;
    Ok(Bytes::from(pieces.concat()))
}
