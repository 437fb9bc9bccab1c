//! A runner that plays parts, and watches that the engine handles it as the port says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use stockade_domain::{
    Action, ActionId, ActionKind, Amounts, ApprovalId, ApprovalState, Failure, Outcome, PolicyVerdict, Run, RunId,
    RunResult, Verdict,
    admission::{AdmitDecision, AdmitRequest},
};
use stockade_ports::{
    Activities, Bus, Clock, Lease, Settle, Store, StoreError, Topic,
    sim::{MemoryStore, RecordingBus, samples},
};
use tokio::{sync::Notify, time::sleep};

use super::TokioClock;

/// A thing a part does.
#[derive(Debug, Clone)]
pub enum Move {
    /// Works for so many milliseconds, or until it is stopped.
    Work(u64),
    /// Wants a command that needs a person's yes, and goes on with any answer.
    Ask(&'static str),
    /// Calls the model once, budgeted.
    Model,
    /// Works until it is stopped.
    Forever,
    /// Works on although it was asked to stop.
    Deaf,
    /// Fails.
    Fail(Failure),
    /// Fails the first so many times.
    FailFirst(u32, Failure),
    /// Breaks off.
    Panic,
}

/// The parts of a run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub provision: Vec<Move>,
    pub drive: Vec<Move>,
    pub export: Vec<Move>,
    pub seal: Vec<Move>,
}

#[derive(Default)]
struct Stage {
    plan: Plan,
    sandbox: bool,
    busy: Option<&'static str>,
    stop: Arc<Notify>,
    stopping: bool,
    failed: BTreeMap<&'static str, u32>,
    effects: Vec<ActionId>,
    log: Vec<&'static str>,
}

pub struct Puppet {
    store: Arc<MemoryStore>,
    bus: Arc<RecordingBus>,
    clock: Arc<TokioClock>,
    stages: Mutex<BTreeMap<RunId, Stage>>,
    violations: Mutex<Vec<String>>,
}

/// Marks a run as busy as long as an activity lives, also when it is dropped.
struct Busy<'a> {
    puppet: &'a Puppet,
    run: RunId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(stage) = self.puppet.stages().get_mut(&self.run) {
            stage.busy = None;
        }
    }
}

impl Puppet {
    pub fn new(store: Arc<MemoryStore>, bus: Arc<RecordingBus>, clock: Arc<TokioClock>) -> Self {
        Self {
            store,
            bus,
            clock,
            stages: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    fn stages(&self) -> MutexGuard<'_, BTreeMap<RunId, Stage>> {
        self.stages.lock().unwrap()
    }

    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub fn plan(&self, run: RunId, plan: Plan) {
        self.stages().entry(run).or_default().plan = plan;
    }

    /// What was called, in order.
    pub fn log(&self, run: RunId) -> String {
        self.stages()[&run].log.join(" ")
    }

    pub fn effects(&self, run: RunId) -> Vec<ActionId> {
        self.stages()[&run].effects.clone()
    }

    pub fn has_sandbox(&self, run: RunId) -> bool {
        self.stages()[&run].sandbox
    }

    /// Removes every sandbox, as the reaper does at boot.
    pub fn reap(&self) {
        for stage in self.stages().values_mut() {
            stage.sandbox = false;
            stage.stopping = false;
        }
    }

    fn enter(&self, run: RunId, what: &'static str) -> Busy<'_> {
        let mut stages = self.stages();
        let stage = stages.get_mut(&run).expect("a run of this test");
        stage.log.push(what);
        if let Some(other) = stage.busy.replace(what) {
            self.violation(format!("{run}: {what} while {other} is going on"));
        }
        if (what == "drive" || what == "export") && !stage.sandbox {
            self.violation(format!("{run}: {what} without a sandbox"));
        }
        if what == "provision" {
            if stage.sandbox {
                self.violation(format!("{run}: a second sandbox"));
            }
            stage.sandbox = true;
            stage.stopping = false;
        }
        drop(stages);
        Busy { puppet: self, run }
    }

    async fn play(&self, run: &Run, lease: Lease, part: &'static str, moves: &[Move]) -> Result<(), Failure> {
        let stop = self.stages()[&run.id].stop.clone();
        for one in moves {
            if self.stages()[&run.id].stopping && !matches!(one, Move::Deaf) {
                return Err(stopped());
            }
            match one {
                Move::Work(millis) => {
                    tokio::select! {
                        () = stop.notified() => return Err(stopped()),
                        () = sleep(Duration::from_millis(*millis)) => {}
                    }
                }
                Move::Ask(what) => {
                    tokio::select! {
                        () = stop.notified() => return Err(stopped()),
                        asked = self.ask(run, lease, what) => asked.map_err(refused)?,
                    }
                }
                Move::Model => self.model(run, lease).await.map_err(refused)?,
                Move::Forever => {
                    stop.notified().await;
                    return Err(stopped());
                }
                Move::Deaf => std::future::pending().await,
                Move::Fail(failure) => return Err(failure.clone()),
                Move::FailFirst(times, failure) => {
                    let mut stages = self.stages();
                    let failed = stages.get_mut(&run.id).unwrap().failed.entry(part).or_default();
                    *failed += 1;
                    if *failed <= *times {
                        return Err(failure.clone());
                    }
                }
                Move::Panic => panic!("played"),
            }
        }
        Ok(())
    }

    fn request(&self, run: &Run, lease: Lease, action: Action, verdict: Verdict, reserve: Amounts) -> AdmitRequest {
        AdmitRequest {
            id: ActionId::from_uuid(self.clock.uuid()),
            run: run.id,
            fence: lease.fence,
            action,
            policy: PolicyVerdict {
                verdict,
                rule: "played".to_owned(),
                reason: "played".to_owned(),
            },
            policy_version: samples::policy_version(),
            reserve,
            approval_id: ApprovalId::from_uuid(self.clock.uuid()),
            now: self.clock.now(),
            trace: None,
        }
    }

    async fn admit(&self, request: &AdmitRequest) -> Result<AdmitDecision, StoreError> {
        let request = AdmitRequest {
            approval_id: ApprovalId::from_uuid(self.clock.uuid()),
            now: self.clock.now(),
            ..request.clone()
        };
        let run = request.run;
        let decision = self.store.admit(request).await?;
        self.bus.publish(Topic::Run(run)).await;
        Ok(decision)
    }

    /// The effect, and its settlement.
    async fn act(&self, decision: &AdmitDecision) -> Result<(), StoreError> {
        let record = &decision.record;
        self.stages().get_mut(&record.run).unwrap().effects.push(record.id);
        sleep(Duration::from_millis(3)).await;
        let settle = Settle {
            id: record.id,
            run: record.run,
            outcome: Outcome::Done,
            spent: record.reserved,
            details: Value::Null,
            now: self.clock.now(),
        };
        self.store.settle(settle).await.map(drop)
    }

    async fn ask(&self, run: &Run, lease: Lease, what: &str) -> Result<(), StoreError> {
        let action = Action {
            kind: ActionKind::Tool,
            operation: "bash".to_owned(),
            target: what.to_owned(),
            args: json!({ "command": what }),
        };
        let request = self.request(run, lease, action, Verdict::Hold, Amounts::ZERO);
        let mut decision = self.admit(&request).await?;
        while let (Verdict::Hold | Verdict::Stop, Some(approval)) = (decision.record.verdict, decision.record.approval)
        {
            while self.store.approval(None, approval).await?.state == ApprovalState::Pending {
                sleep(Duration::from_millis(10)).await;
            }
            decision = self.admit(&request).await?;
        }
        match decision.record.verdict {
            Verdict::Allow => self.act(&decision).await,
            _ => Ok(()),
        }
    }

    async fn model(&self, run: &Run, lease: Lease) -> Result<(), StoreError> {
        let action = Action {
            kind: ActionKind::Model,
            operation: "messages".to_owned(),
            target: "scripted".to_owned(),
            args: Value::Null,
        };
        let one = Amounts {
            model_requests: 1,
            ..Amounts::ZERO
        };
        let decision = self
            .admit(&self.request(run, lease, action, Verdict::Allow, one))
            .await?;
        match decision.record.verdict {
            Verdict::Allow => self.act(&decision).await,
            _ => Ok(()),
        }
    }
}

fn stopped() -> Failure {
    Failure::terminal("stopped", "stopped as asked")
}

fn refused(error: StoreError) -> Failure {
    Failure::terminal("store", error.to_string())
}

#[async_trait]
impl Activities for Puppet {
    async fn provision(&self, run: &Run, lease: Lease) -> Result<(), Failure> {
        let _busy = self.enter(run.id, "provision");
        let moves = self.stages()[&run.id].plan.provision.clone();
        self.play(run, lease, "provision", &moves).await
    }

    async fn drive(&self, run: &Run, lease: Lease) -> Result<(), Failure> {
        let _busy = self.enter(run.id, "drive");
        let moves = self.stages()[&run.id].plan.drive.clone();
        self.play(run, lease, "drive", &moves).await
    }

    async fn export(&self, run: &Run, lease: Lease) -> Result<RunResult, Failure> {
        let _busy = self.enter(run.id, "export");
        let moves = self.stages()[&run.id].plan.export.clone();
        self.play(run, lease, "export", &moves).await?;
        Ok(RunResult {
            summary: "played".to_owned(),
            ..RunResult::default()
        })
    }

    async fn stop(&self, run: RunId) {
        let mut stages = self.stages();
        let stage = stages.get_mut(&run).unwrap();
        stage.log.push("stop");
        stage.stopping = true;
        stage.stop.notify_waiters();
    }

    async fn cleanup(&self, run: RunId) {
        let _busy = self.enter(run, "cleanup");
        if let Ok(stored) = self.store.run(None, run).await
            && stored.state().is_terminal()
            && self.has_sandbox(run)
        {
            self.violation(format!("{run}: its sandbox outlived it"));
        }
        sleep(Duration::from_millis(2)).await;
        self.stages().get_mut(&run).unwrap().sandbox = false;
    }

    async fn seal(&self, run: RunId) -> Result<(), Failure> {
        let _busy = self.enter(run, "seal");
        let stored = self
            .store
            .run(None, run)
            .await
            .map_err(|e| Failure::transient("store", e.to_string()))?;
        if !stored.state().is_terminal() {
            self.violation(format!("{run}: sealed while it is {}", stored.state().as_str()));
        }
        let moves = self.stages()[&run].plan.seal.clone();
        self.play(&stored, Lease { fence: 0 }, "seal", &moves).await?;
        let receipt = Bytes::from(stored.chain_head.to_string());
        let put = self.store.put_artifact(run, "receipt", receipt).await;
        put.map_err(|e| Failure::transient("store", e.to_string()))
    }
}
