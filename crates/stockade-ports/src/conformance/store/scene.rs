//! A team with runs, for one case.

use std::sync::Arc;

use serde_json::{Value, json};
use stockade_domain::{
    Action, ActionId, ActionKind, Amounts, Approval, ApprovalDecision, ApprovalId, Decision, Event, Limits, NewEvent,
    PolicyVerdict, Run, RunId, RunInput, TaskId, TeamId, Timestamp, TokenId, Verdict,
    admission::{AdmitDecision, AdmitRequest},
    event::chain_head,
    machine::Cancellation,
};

use crate::{
    Claim, Clock, CreateRun, CreateTask, Created, Lease, Settle, Store, StoreError, SystemClock, sim::samples,
};

pub(super) struct Scene {
    pub(super) store: Arc<dyn Store>,
    pub(super) team: TeamId,
    /// When the scene plays.
    pub(super) now: Timestamp,
}

pub(super) fn action_id() -> ActionId {
    ActionId::from_uuid(SystemClock.uuid())
}

pub(super) fn task_id() -> TaskId {
    TaskId::from_uuid(SystemClock.uuid())
}

pub(super) fn run_id() -> RunId {
    RunId::from_uuid(SystemClock.uuid())
}

pub(super) fn token_id() -> TokenId {
    TokenId::from_uuid(SystemClock.uuid())
}

pub(super) fn team_id() -> TeamId {
    TeamId::from_uuid(SystemClock.uuid())
}

pub(super) fn command(command: &str) -> Action {
    Action {
        kind: ActionKind::Tool,
        operation: "bash".to_owned(),
        target: command.to_owned(),
        args: json!({ "command": command }),
    }
}

pub(super) fn model_call() -> Action {
    Action {
        kind: ActionKind::Model,
        operation: "messages".to_owned(),
        target: "scripted".to_owned(),
        args: Value::Null,
    }
}

pub(super) fn requests(model_requests: u64) -> Amounts {
    Amounts {
        model_requests,
        ..Amounts::ZERO
    }
}

pub(super) fn answer(decision: Decision) -> ApprovalDecision {
    ApprovalDecision {
        decision,
        by: "ada".to_owned(),
        reason: Some("looked at it".to_owned()),
        edited_args: None,
    }
}

pub(super) fn cancel() -> RunInput {
    RunInput::Cancel(Cancellation {
        by: "ada".to_owned(),
        reason: None,
    })
}

pub(super) fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

pub(super) fn note(text: &str) -> NewEvent {
    NewEvent::new(stockade_domain::EventType::MessageAgent, json!({ "text": text }))
}

/// The answer of a store that must have given one.
pub(super) fn ok<T>(answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|e| panic!("the store refused: {e}"))
}

/// The refusal of a store that must have refused.
pub(super) fn refused<T>(answer: Result<T, StoreError>, what: &str) -> StoreError {
    match answer {
        Ok(_) => panic!("the store took {what}"),
        Err(error) => error,
    }
}

pub(super) fn assert_not_found<T>(answer: Result<T, StoreError>, what: &str) {
    let error = refused(answer, what);
    assert!(matches!(error, StoreError::NotFound { .. }), "{what}: {error}");
}

pub(super) fn assert_fenced<T>(answer: Result<T, StoreError>, what: &str) {
    let error = refused(answer, what);
    assert!(matches!(error, StoreError::Fenced { .. }), "{what}: {error}");
}

pub(super) fn assert_illegal<T>(answer: Result<T, StoreError>, what: &str) {
    let error = refused(answer, what);
    assert!(matches!(error, StoreError::Illegal(_)), "{what}: {error}");
}

impl Scene {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            store: Arc::clone(store),
            team: team_id(),
            now: SystemClock.now(),
        }
    }

    pub(super) fn later(&self, millis: i64) -> Timestamp {
        let later = self.now.as_millisecond() + millis;
        Timestamp::from_millisecond(later).expect("a test's time exists")
    }

    pub(super) fn create(&self, prompt: &str, limits: Option<Limits>, key: Option<&str>) -> CreateTask {
        CreateTask {
            id: task_id(),
            team: self.team,
            prompt: prompt.to_owned(),
            repo: None,
            run: limits.map(|limits| CreateRun {
                id: run_id(),
                spec: samples::spec(limits),
            }),
            idempotency_key: key.map(str::to_owned),
            now: self.now,
        }
    }

    pub(super) async fn created(&self, request: CreateTask) -> Created {
        ok(self.store.create_task(request).await)
    }

    pub(super) async fn queued(&self, limits: Limits) -> Run {
        let created = self.created(self.create("do it", Some(limits), None)).await;
        created.run.expect("a run was asked for")
    }

    /// Claims until it is this run's turn: other cases may have left runs behind.
    pub(super) async fn claim(&self, run: RunId, now: Timestamp) -> Claim {
        loop {
            let claim = ok(self.store.claim(now).await);
            let claim = claim.unwrap_or_else(|| panic!("{run} is not offered"));
            if claim.run.id == run {
                return claim;
            }
        }
    }

    /// Whether this run is offered; it is taken if so.
    pub(super) async fn offered(&self, run: RunId, now: Timestamp) -> bool {
        while let Some(claim) = ok(self.store.claim(now).await) {
            if claim.run.id == run {
                return true;
            }
        }
        false
    }

    pub(super) async fn running(&self, limits: Limits) -> (RunId, Lease) {
        let run = self.queued(limits).await.id;
        let lease = self.claim(run, self.now).await.lease;
        self.step(run, lease, RunInput::Provisioned).await;
        (run, lease)
    }

    pub(super) async fn step(&self, run: RunId, lease: Lease, input: RunInput) -> Run {
        ok(self.store.step(run, Some(lease), input, self.now).await).0
    }

    pub(super) async fn run(&self, run: RunId) -> Run {
        ok(self.store.run(Some(self.team), run).await)
    }

    pub(super) fn request(&self, run: RunId, lease: Lease, action: Action, verdict: Verdict) -> AdmitRequest {
        AdmitRequest {
            id: action_id(),
            run,
            fence: lease.fence,
            action,
            policy: PolicyVerdict {
                verdict,
                rule: "rule".to_owned(),
                reason: "a reason".to_owned(),
            },
            policy_version: samples::policy_version(),
            reserve: Amounts::ZERO,
            approval_id: ApprovalId::from_uuid(SystemClock.uuid()),
            now: self.now,
            trace: None,
        }
    }

    pub(super) async fn admit(&self, request: &AdmitRequest) -> AdmitDecision {
        ok(self.store.admit(request.clone()).await)
    }

    /// Asks again, as a gate does after an answer: the same action under the same id.
    pub(super) async fn ask_again(&self, request: &AdmitRequest) -> AdmitDecision {
        let request = AdmitRequest {
            approval_id: ApprovalId::from_uuid(SystemClock.uuid()),
            ..request.clone()
        };
        self.admit(&request).await
    }

    /// An action held for a person.
    pub(super) async fn held(&self, run: RunId, lease: Lease, what: &str) -> (AdmitRequest, Approval) {
        let request = self.request(run, lease, command(what), Verdict::Hold);
        let decision = self.admit(&request).await;
        assert_eq!(decision.record.verdict, Verdict::Hold);
        (request, decision.approval.expect("a hold opens an approval"))
    }

    pub(super) async fn decide(&self, id: ApprovalId, decision: Decision) -> Approval {
        ok(self.store.decide(self.team, id, answer(decision), self.now).await)
    }

    pub(super) fn settle(&self, run: RunId, id: ActionId, spent: Amounts) -> Settle {
        Settle {
            id,
            run,
            outcome: stockade_domain::Outcome::Done,
            spent,
            details: json!({ "exit": 0 }),
            now: self.now,
        }
    }

    /// All events of a run, after checking that they are dense and chained.
    pub(super) async fn history(&self, run: RunId) -> Vec<Event> {
        let events = ok(self.store.events(run, 0, u32::MAX).await);
        let stored = self.run(run).await;
        assert_eq!(events.len() as u64, stored.last_seq, "the run knows its last event");
        for (place, event) in (1..).zip(&events) {
            assert_eq!((event.seq, event.run), (place, run));
            assert_eq!(event.id, format!("{run}:{place}"));
        }
        let head = chain_head(&events).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(head, stored.chain_head, "the chain's head is the run's");
        events
    }
}
