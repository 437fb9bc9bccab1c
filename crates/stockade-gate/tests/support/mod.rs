//! A simulated installation with one claimed run.

use std::sync::Arc;

use serde_json::json;
use stockade_domain::{
    Action, ActionKind, AgentKind, AgentSpec, BudgetLimits, Environment, EventType, Limits, LimitsPatch, NetworkLevel,
    Rule, RuleMatch, RuleVerdict, RunId, RunInput, RunSpec, RunState, SnapshotPlan, TaskId, TeamId, Timestamp,
};
use stockade_gate::{Gate, Scope};
use stockade_policy::Policy;
use stockade_ports::{
    Clock, CreateRun, CreateTask, Lease, ManualClock, Store,
    sim::{MemoryStore, RecordingBus},
};
use uuid::Uuid;

pub(crate) const MODEL_REQUESTS: u32 = 100;
pub(crate) const TURNS: u64 = 3;

pub(crate) struct Installation {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) gate: Gate,
    pub(crate) scope: Scope,
    pub(crate) run: RunId,
}

impl Installation {
    /// A run whose agent has a rule per command.
    pub(crate) async fn start(rules: &[(&str, &str)]) -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(ManualClock::at(1_000_000));
        let run = RunId::from_uuid(Uuid::from_u128(1));
        let spec = spec(rules);
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
        let (run_row, _) = store
            .step(run, Some(claim.lease), RunInput::Provisioned, clock.now())
            .await
            .unwrap();
        let scope = Scope::of(&run_row, claim.lease).unwrap();
        let gate = Gate::new(store.clone(), Arc::new(RecordingBus::default()), clock.clone());
        Self {
            store,
            clock,
            gate,
            scope,
            run,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn state(&self) -> RunState {
        self.store.run(None, self.run).await.unwrap().state()
    }

    pub(crate) async fn scope_with_fence(&self, fence: u64) -> Scope {
        Scope::of(&self.store.run(None, self.run).await.unwrap(), Lease { fence }).unwrap()
    }

    pub(crate) async fn count(&self, kind: EventType) -> usize {
        self.store
            .events(self.run, 0, 10_000)
            .await
            .unwrap()
            .iter()
            .filter(|e| e.kind == kind)
            .count()
    }
}

pub(crate) fn spec(rules: &[(&str, &str)]) -> RunSpec {
    let rules = rules.iter().map(|(command, verdict)| Rule {
        id: format!("rule-{command}"),
        when: RuleMatch {
            command: Some((*command).to_owned()),
            ..RuleMatch::default()
        },
        verdict: if *verdict == "ask" {
            RuleVerdict::Ask
        } else {
            RuleVerdict::Deny
        },
        reason: "because".into(),
    });
    let agent = AgentSpec {
        name: "test".into(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: rules.collect(),
        limits: LimitsPatch::default(),
    };
    let environment = Environment::named("default", NetworkLevel::None);
    let policy_version = Policy::compile(&agent, &environment).unwrap().version();
    let budget = BudgetLimits {
        model_requests: Some(MODEL_REQUESTS.into()),
        turns: Some(TURNS),
        ..BudgetLimits::default()
    };
    let limits = Limits {
        budget,
        ..Limits::default()
    };
    RunSpec {
        prompt: "go".into(),
        repo: None,
        agent,
        environment,
        model: "m".into(),
        backend: "native".into(),
        snapshot: SnapshotPlan::default(),
        git_host: None,
        publish: None,
        limits,
        policy_version,
    }
}

pub(crate) fn bash(command: &str) -> Action {
    Action {
        kind: ActionKind::Tool,
        operation: "bash".into(),
        target: command.into(),
        args: json!({ "command": command }),
    }
}

pub(crate) fn model_call() -> Action {
    Action {
        kind: ActionKind::Model,
        operation: "anthropic_messages".into(),
        target: "m".into(),
        args: json!({}),
    }
}
