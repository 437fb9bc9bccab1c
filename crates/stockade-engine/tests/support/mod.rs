//! A world for engine tests: a store, a clock that is tokio's, and a runner that plays parts.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part of it

mod puppet;

use std::{sync::Arc, time::Duration};

use stockade_domain::{
    Approval, ApprovalDecision, ApprovalState, Decision, Event, Limits, Run, RunId, RunInput, RunState, TaskId, TeamId,
    Timestamp, event::chain_head, machine::Cancellation,
};
use stockade_engine::{EmbeddedEngine, EngineConfig};
use stockade_ports::{
    Activities, Bus, Clock, CreateRun, CreateTask, Engine, Store, StoreError, SystemClock, Topic,
    sim::{MemoryStore, RecordingBus, samples},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use puppet::{Move, Plan, Puppet};

/// Tells tokio's time, which tests pause and which then flies.
pub struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let millis = i64::try_from(self.start.elapsed().as_millis()).unwrap();
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn uuid(&self) -> Uuid {
        SystemClock.uuid()
    }
}

pub struct World {
    pub store: Arc<MemoryStore>,
    pub bus: Arc<RecordingBus>,
    pub clock: Arc<TokioClock>,
    pub puppet: Arc<Puppet>,
    pub config: EngineConfig,
    _place: TempDir,
}

impl World {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::default());
        let clock = Arc::new(TokioClock { start: Instant::now() });
        let bus = Arc::new(RecordingBus::default());
        Self {
            puppet: Arc::new(Puppet::new(store.clone(), bus.clone(), clock.clone())),
            store,
            bus,
            clock,
            config: EngineConfig::new(place.path().join("engine.lock")),
            _place: place,
        }
    }

    /// Starts an engine; a killed one may need a moment to be gone.
    pub async fn engine(&self) -> Arc<EmbeddedEngine> {
        for _ in 0..20_000 {
            let (store, bus, clock) = (self.store.clone(), self.bus.clone(), self.clock.clone());
            let activities: Arc<dyn Activities> = self.puppet.clone();
            match EmbeddedEngine::start(store, bus, clock, activities, self.config.clone()).await {
                Ok(engine) => return engine,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("the engine does not start");
    }

    /// Ends an engine as `kill -9` does, and reaps the sandboxes as the next boot does.
    pub async fn kill(&self, engine: Arc<EmbeddedEngine>) {
        drop(engine);
        // The tasks are gone when the lock is free again.
        while std::fs::File::open(&self.config.lock_path).unwrap().try_lock().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        self.puppet.reap();
    }

    pub async fn queue(&self, plan: Plan) -> RunId {
        self.queue_with(plan, samples::limits()).await
    }

    pub async fn queue_with(&self, plan: Plan, limits: Limits) -> RunId {
        let run = RunId::from_uuid(self.clock.uuid());
        self.puppet.plan(run, plan);
        let create = CreateTask {
            id: TaskId::from_uuid(self.clock.uuid()),
            team: TeamId::DEFAULT,
            prompt: "play".to_owned(),
            repo: None,
            run: Some(CreateRun {
                id: run,
                spec: samples::spec(limits),
            }),
            idempotency_key: None,
            now: self.clock.now(),
        };
        self.store.create_task(create).await.unwrap();
        self.bus.publish(Topic::Queue).await;
        run
    }

    pub async fn run(&self, run: RunId) -> Run {
        self.store.run(None, run).await.unwrap()
    }

    pub async fn until(&self, run: RunId, what: &str, seen: impl Fn(&Run) -> bool) -> Run {
        for _ in 0..100_000 {
            match self.store.run(None, run).await {
                Ok(now) if seen(&now) => return now,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
        panic!(
            "{run} is never {what}: {:?}",
            self.store.run(None, run).await.map(|run| run.machine)
        );
    }

    pub async fn until_state(&self, run: RunId, state: RunState) -> Run {
        self.until(run, state.as_str(), |now| now.state() == state).await
    }

    /// Waits for the receipt, which is the last thing that happens to a run.
    pub async fn until_sealed(&self, run: RunId) -> Run {
        for _ in 0..20_000 {
            if self.store.artifact(run, "receipt").await.is_ok() {
                return self.run(run).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{run} is never sealed: {:?}", self.run(run).await.machine);
    }

    pub async fn pending(&self, run: RunId) -> Vec<Approval> {
        let list = self.store.approvals(None, Some(run), Some(ApprovalState::Pending), 100);
        list.await.unwrap()
    }

    pub async fn decide(&self, approval: &Approval, decision: Decision) -> Result<(), StoreError> {
        let decision = ApprovalDecision {
            decision,
            by: "ada".to_owned(),
            reason: None,
            edited_args: None,
        };
        let decided = self
            .store
            .decide(TeamId::DEFAULT, approval.id, decision, self.clock.now());
        decided.await?;
        self.bus.publish(Topic::Run(approval.run)).await;
        self.bus.publish(Topic::Queue).await;
        Ok(())
    }

    pub async fn cancel(&self, engine: &EmbeddedEngine, run: RunId) -> Result<(), StoreError> {
        let cancel = RunInput::Cancel(Cancellation {
            by: "ada".to_owned(),
            reason: None,
        });
        self.store.step(run, None, cancel, self.clock.now()).await?;
        engine.wake(run).await;
        Ok(())
    }

    pub async fn events(&self, run: RunId) -> Vec<Event> {
        self.store.events(run, 0, u32::MAX).await.unwrap()
    }

    pub async fn told(&self, run: RunId) -> String {
        let kinds: Vec<_> = self.events(run).await.iter().map(|event| event.kind.as_str()).collect();
        kinds.join(" ")
    }

    /// DESIGN section 5, invariants 1 to 4 (and the engine's part of 5), on everything stored.
    pub async fn check(&self) {
        assert_eq!(self.puppet.violations(), Vec::<String>::new());
        for run in self.store.runs(None, &[], None, u32::MAX).await.unwrap() {
            let events = self.events(run.id).await;
            assert_eq!(chain_head(&events).expect("dense"), run.chain_head);
            assert_eq!(events.len() as u64, run.last_seq);
            let ends = |event: &Event| matches!(event.kind.as_str(), "run.completed" | "run.failed" | "run.cancelled");
            if run.state().is_terminal() {
                let end = events.iter().position(ends).expect("an ended run says so");
                assert_eq!(
                    end + 1,
                    events.len(),
                    "the end is the last event: {}",
                    self.told(run.id).await
                );
                assert!(!self.puppet.has_sandbox(run.id), "the sandbox ends with its run");
                self.store
                    .artifact(run.id, "receipt")
                    .await
                    .expect("an ended run has a receipt");
            } else {
                assert!(!events.iter().any(ends), "a run came back: {}", self.told(run.id).await);
            }
            let actions = self.store.actions(run.id).await.unwrap();
            for id in self.puppet.effects(run.id) {
                let record = actions
                    .iter()
                    .find(|action| action.id == id)
                    .expect("an effect has an action");
                assert_eq!(
                    record.verdict,
                    stockade_domain::Verdict::Allow,
                    "an effect was admitted"
                );
                let admitted =
                    |event: &&Event| event.kind.as_str() == "action.admitted" && event.data["action"] == id.to_string();
                assert_eq!(events.iter().filter(admitted).count(), 1, "an admission is an event");
            }
            let mut effects = self.puppet.effects(run.id);
            effects.sort_unstable();
            effects.dedup();
            assert_eq!(
                effects.len(),
                self.puppet.effects(run.id).len(),
                "an effect happens once"
            );
            if let Some(limit) = run.budget.limits.model_requests {
                assert!(
                    run.budget.used.plus(run.budget.reserved).model_requests <= limit,
                    "{:?}",
                    run.budget
                );
            }
        }
    }
}
