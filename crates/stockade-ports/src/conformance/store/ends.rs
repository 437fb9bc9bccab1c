//! Ends: terminal runs, lost workers, cancellation.

use std::sync::Arc;

use bytes::Bytes;
use stockade_domain::{
    ApprovalState, Command, Decision, Failure, Outcome, RunInput, RunResult, RunState, Verdict,
    admission::AdmitRequest, approval::DecisionError,
};

use super::scene::{Scene, answer, assert_illegal, cancel, command, kinds, model_call, note, ok, refused, requests};
use crate::{Store, StoreError, sim::samples};

/// Nothing changes a run that has ended.
pub async fn a_terminal_run_never_changes(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let used = scene.request(run, lease, command("ls"), Verdict::Allow);
    scene.admit(&used).await;
    let (_, approval) = scene.held(run, lease, "make deploy").await;
    scene.step(run, lease, RunInput::AgentFinished).await;
    let result = RunResult {
        summary: "done".to_owned(),
        ..RunResult::default()
    };
    let ended = scene.step(run, lease, RunInput::Exported(result.clone())).await;
    assert_eq!(
        (ended.state(), ended.result.clone()),
        (RunState::Completed, Some(result))
    );
    assert_eq!((ended.ended_at, ended.failure.clone()), (Some(scene.now), None));
    let now = scene.later(1);
    assert_illegal(store.append(run, lease, vec![note("late")], now).await, "a late event");
    assert_illegal(store.begin_turn(run, lease, now).await, "a late turn");
    let late = scene.request(run, lease, command("ls -l"), Verdict::Allow);
    assert_illegal(store.admit(late).await, "a late action");
    assert_illegal(
        store.settle(scene.settle(run, used.id, requests(0))).await,
        "a late settlement",
    );
    let said = store.push_message(scene.team, run, "ada".to_owned(), "hello?".to_owned(), false, now);
    assert_illegal(said.await, "a late message");
    for input in [cancel(), RunInput::WorkerLost] {
        assert_illegal(store.step(run, None, input, now).await, "a late input from outside");
    }
    for input in [
        RunInput::Stopped,
        RunInput::Provisioned,
        RunInput::Fail(Failure::transient("x", "x")),
        RunInput::Exported(RunResult::default()),
    ] {
        assert_illegal(store.step(run, Some(lease), input, now).await, "a late report");
    }
    let decided = store.decide(scene.team, approval.id, answer(Decision::Approve), now);
    let error = refused(decided.await, "a late decision");
    assert!(
        matches!(error, StoreError::Decision(DecisionError::Closed { .. })),
        "{error}"
    );
    ok(store.expire(scene.later(1_000_000_000)).await);
    assert!(
        !scene.offered(run, scene.later(1_000_000_000)).await,
        "an ended run is never offered"
    );
    assert_eq!(scene.run(run).await, ended);
    assert_eq!(kinds(&scene.history(run).await).last(), Some(&"run.completed"));
    // Its receipt is made after its end.
    ok(store.put_artifact(run, "receipt", Bytes::from_static(b"{}")).await);
}

/// What was open is closed before the last word.
pub async fn an_end_closes_what_is_open(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let model = AdmitRequest {
        reserve: requests(3),
        ..scene.request(run, lease, model_call(), Verdict::Allow)
    };
    scene.admit(&model).await;
    let tool = AdmitRequest {
        reserve: requests(5),
        ..scene.request(run, lease, command("sleep 1000"), Verdict::Allow)
    };
    scene.admit(&tool).await;
    let done = scene.request(run, lease, command("true"), Verdict::Allow);
    scene.admit(&done).await;
    ok(store.settle(scene.settle(run, done.id, requests(0))).await);
    let (_, pending) = scene.held(run, lease, "make deploy").await;
    let (_, approved) = scene.held(run, lease, "make release").await;
    scene.decide(approved.id, Decision::Approve).await;
    let before = scene.history(run).await.len();
    let failure = Failure::terminal("disk_full", "no space left");
    let ended = scene.step(run, lease, RunInput::Fail(failure.clone())).await;
    assert_eq!((ended.state(), ended.failure), (RunState::Failed, Some(failure)));
    let history = scene.history(run).await;
    let told = &history[before..];
    assert_eq!(
        kinds(told),
        ["model.call", "action.settled", "approval.expired", "run.failed"]
    );
    assert_eq!(told[0].data["outcome"]["result"], "unknown");
    assert_eq!(told[2].data["approval"], pending.id.to_string());
    assert_eq!(told[2].data["reason"], "run ended");
    assert_eq!(ended.budget.reserved, requests(0), "nothing stays reserved");
    assert_eq!(
        ended.budget.used,
        requests(3),
        "a lost model call counts as made, a lost tool call as free"
    );
    let outcomes: Vec<_> = ok(store.actions(run).await)
        .into_iter()
        .map(|action| action.outcome)
        .collect();
    let unknown = Some(Outcome::Unknown);
    assert_eq!(outcomes[..3], [unknown.clone(), unknown, Some(Outcome::Done)]);
    assert_eq!(outcomes[3..], [None, None], "what was never admitted has no outcome");
    let state = async |id| ok(store.approval(None, id).await).state;
    assert_eq!(state(pending.id).await, ApprovalState::Cancelled);
    assert_eq!(state(approved.id).await, ApprovalState::Approved);
}

/// A run that was working when its worker died fails, and says that nobody knows.
pub async fn a_lost_worker_fails_a_working_run(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let busy = scene.request(run, lease, command("make deploy"), Verdict::Allow);
    scene.admit(&busy).await;
    let (lost, step) = ok(store.step(run, None, RunInput::WorkerLost, scene.now).await);
    assert_eq!(lost.state(), RunState::Failed);
    assert_eq!(lost.failure.map(|failure| failure.code).as_deref(), Some("interrupted"));
    assert!(step.commands.contains(&Command::Seal));
    let history = scene.history(run).await;
    assert_eq!(kinds(&history[4..]), ["action.settled", "sandbox.ended", "run.failed"]);
    assert!(!scene.offered(run, scene.later(1_000_000_000)).await);
    // Before the agent worked, trying again repeats nothing.
    let young = scene.queued(samples::limits()).await.id;
    scene.claim(young, scene.now).await;
    let (young, _) = ok(store.step(young, None, RunInput::WorkerLost, scene.now).await);
    assert_eq!((young.state(), young.machine.attached), (RunState::Queued, false));
    assert!(scene.offered(young.id, scene.later(60_000)).await);
}

/// A question to a person survives the process that asked it.
pub async fn a_waiting_run_outlives_its_worker(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (request, approval) = scene.held(run, lease, "make deploy").await;
    let (lost, _) = ok(store.step(run, None, RunInput::WorkerLost, scene.now).await);
    assert_eq!((lost.state(), lost.machine.attached), (RunState::Waiting, false));
    assert_eq!(lost.machine.open, [approval.id]);
    assert_eq!(
        ok(store.approval(None, approval.id).await).state,
        ApprovalState::Pending
    );
    assert!(
        !scene.offered(run, scene.later(1000)).await,
        "nobody takes a run that waits"
    );
    let again = ok(store.step(run, None, RunInput::WorkerLost, scene.now).await).0;
    assert_eq!(again, lost, "losing nobody changes nothing");
    scene.decide(approval.id, Decision::Approve).await;
    let claim = scene.claim(run, scene.now).await;
    assert_eq!(
        (claim.run.state(), claim.run.machine.attempt),
        (RunState::Provisioning, 2)
    );
    assert_eq!(claim.run.started_at, lost.started_at);
    scene.step(run, claim.lease, RunInput::Provisioned).await;
    let asked = scene.request(run, claim.lease, request.action.clone(), Verdict::Hold);
    let admitted = scene.admit(&asked).await;
    assert_eq!(
        admitted.record.verdict,
        Verdict::Allow,
        "the answer is used by the next attempt"
    );
    assert_eq!(admitted.record.approval, Some(approval.id));
}

/// Nobody's run ends at once; a worker's run is asked to stop and acts no more.
pub async fn cancelling_is_asked_or_done(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let idle = scene.queued(samples::limits()).await.id;
    let (ended, _) = ok(store.step(idle, None, cancel(), scene.now).await);
    assert_eq!((ended.state(), ended.ended_at), (RunState::Cancelled, Some(scene.now)));
    assert!(!scene.offered(idle, scene.later(1000)).await);
    let (busy, lease) = scene.running(samples::limits()).await;
    let too_early = store.step(busy, Some(lease), RunInput::Stopped, scene.now);
    assert_illegal(too_early.await, "a stop nobody asked for");
    let (asked, step) = ok(store.step(busy, None, cancel(), scene.now).await);
    assert_eq!((asked.state(), step.commands), (RunState::Running, vec![Command::Stop]));
    let denied = scene.request(busy, lease, command("ls"), Verdict::Allow);
    assert_eq!(scene.admit(&denied).await.record.verdict, Verdict::Deny);
    assert_illegal(
        store.begin_turn(busy, lease, scene.now).await,
        "a turn of a run that is stopping",
    );
    ok(store.append(busy, lease, vec![note("packing up")], scene.now).await);
    let stopped = scene.step(busy, lease, RunInput::Stopped).await;
    assert_eq!(stopped.state(), RunState::Cancelled);
    assert_eq!(kinds(&scene.history(busy).await).last(), Some(&"run.cancelled"));
}
