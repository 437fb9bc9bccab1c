//! Approvals: asked once, answered once, used once.

use std::sync::Arc;

use serde_json::json;
use stockade_domain::{
    ApprovalDecision, ApprovalId, ApprovalState, Decision, RunState, Verdict, admission::AdmitRequest,
    approval::DecisionError,
};

use super::scene::{Scene, answer, command, kinds, ok, refused};
use crate::{Clock, Store, StoreError, SystemClock, sim::samples};

/// The run waits, goes on with the answer, and the answer admits the action.
pub async fn a_held_action_waits_for_its_answer(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (request, approval) = scene.held(run, lease, "make deploy").await;
    let waiting = scene.run(run).await;
    assert_eq!(
        (waiting.state(), &waiting.machine.open),
        (RunState::Waiting, &vec![approval.id])
    );
    assert_eq!(ok(store.approval(Some(scene.team), approval.id).await), approval);
    let pending = store.approvals(Some(scene.team), Some(run), Some(ApprovalState::Pending), 10);
    assert_eq!(ok(pending.await), std::slice::from_ref(&approval));
    let joined = scene.request(run, lease, command("make deploy"), Verdict::Hold);
    let joined = scene.admit(&joined).await;
    assert_eq!(
        joined.record.approval,
        Some(approval.id),
        "the same question is asked once"
    );
    let decided = scene.decide(approval.id, Decision::Approve).await;
    assert_eq!(
        (decided.state, decided.decided_at),
        (ApprovalState::Approved, Some(scene.now))
    );
    assert_eq!(decided.decided_by.as_deref(), Some("ada"));
    assert_eq!(scene.run(run).await.state(), RunState::Running);
    let admitted = scene.ask_again(&request).await;
    assert_eq!(admitted.record.verdict, Verdict::Allow);
    let used = ok(store.approval(None, approval.id).await);
    assert_eq!(used.used_at, Some(scene.now));
    let told = kinds(&scene.history(run).await[3..]).join(" ");
    let expected =
        "action.held approval.requested run.waiting action.held approval.decided run.running action.admitted";
    assert_eq!(told, expected);
    let decided = &scene.history(run).await[7].data;
    assert_eq!(
        (&decided["by"], &decided["decision"]),
        (&json!("ada"), &json!("approve"))
    );
    assert_eq!(
        (&decided["reason"], &decided["edited"]),
        (&json!("looked at it"), &json!(null))
    );
    let pending = store.approvals(Some(scene.team), None, Some(ApprovalState::Pending), 10);
    assert_eq!(ok(pending.await), []);
    let rejected = scene.held(run, lease, "make release").await;
    scene.decide(rejected.1.id, Decision::Reject).await;
    assert_eq!(scene.ask_again(&rejected.0).await.record.verdict, Verdict::Deny);
}

/// Twenty at once want to use one yes: one does.
pub async fn an_approval_is_used_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (_, approval) = scene.held(run, lease, "make deploy").await;
    scene.decide(approval.id, Decision::Approve).await;
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let request = scene.request(run, lease, command("make deploy"), Verdict::Hold);
            let store = Arc::clone(store);
            tokio::spawn(async move { store.admit(request).await })
        })
        .collect();
    let mut verdicts = Vec::new();
    for asked in asking {
        verdicts.push(ok(asked.await.expect("an asker ends")).record.verdict);
    }
    let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
    assert_eq!((count(Verdict::Allow), count(Verdict::Hold)), (1, 19));
    let approvals = ok(store.approvals(None, Some(run), None, 100).await);
    assert_eq!(approvals.len(), 2, "the others wait together for one new answer");
    scene.history(run).await;
}

/// The first answer counts.
pub async fn an_approval_is_answered_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (_, approval) = scene.held(run, lease, "make deploy").await;
    let deciding: Vec<_> = (0..20)
        .map(|n| {
            let decision = if n % 2 == 0 {
                Decision::Approve
            } else {
                Decision::Reject
            };
            let (store, team, now) = (Arc::clone(store), scene.team, scene.now);
            tokio::spawn(async move { store.decide(team, approval.id, answer(decision), now).await })
        })
        .collect();
    let mut taken = Vec::new();
    for decided in deciding {
        match decided.await.expect("a decider ends") {
            Ok(decided) => taken.push(decided),
            Err(StoreError::Decision(DecisionError::Closed { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken.len(), 1);
    assert_eq!(ok(store.approval(None, approval.id).await), taken[0]);
    let told = kinds(&scene.history(run).await);
    assert_eq!(told.iter().filter(|kind| **kind == "approval.decided").count(), 1);
}

/// A yes is for the exact action, of the same run, while its time lasts.
pub async fn an_approval_is_for_one_exact_action(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (request, approval) = scene.held(run, lease, "make deploy").await;
    scene.decide(approval.id, Decision::Approve).await;
    let mut other = request.action.clone();
    other.args["command"] = json!("make deploy ");
    let other = scene.admit(&scene.request(run, lease, other, Verdict::Hold)).await;
    assert_eq!(other.record.verdict, Verdict::Hold);
    assert_ne!(other.record.approval, Some(approval.id));
    let (elsewhere, held) = scene.running(samples::limits()).await;
    let elsewhere = scene.request(elsewhere, held, request.action.clone(), Verdict::Hold);
    assert_eq!(
        scene.admit(&elsewhere).await.record.verdict,
        Verdict::Hold,
        "another run asks for itself"
    );
    let forbidden = scene.request(run, lease, request.action.clone(), Verdict::Deny);
    assert_eq!(
        scene.admit(&forbidden).await.record.verdict,
        Verdict::Deny,
        "a policy's no is no question"
    );
    assert_eq!(ok(store.approval(None, approval.id).await).used_at, None);
    let late = AdmitRequest {
        now: approval.expires_at,
        ..scene.request(run, lease, request.action.clone(), Verdict::Hold)
    };
    assert_eq!(
        scene.admit(&late).await.record.verdict,
        Verdict::Deny,
        "a yes does not last for ever"
    );
}

/// What a person edited is what is admitted, and the loop watch still sees what was asked.
pub async fn an_edited_action_runs_as_edited(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let (request, approval) = scene.held(run, lease, "make deploy").await;
    let edited = ApprovalDecision {
        edited_args: Some(json!({ "command": "make deploy DRY_RUN=1" })),
        ..answer(Decision::Approve)
    };
    let rejected = ApprovalDecision {
        decision: Decision::Reject,
        ..edited.clone()
    };
    let error = refused(
        store.decide(scene.team, approval.id, rejected, scene.now).await,
        "a no with other arguments",
    );
    assert!(
        matches!(error, StoreError::Decision(DecisionError::NotEditable(_))),
        "{error}"
    );
    ok(store.decide(scene.team, approval.id, edited, scene.now).await);
    let admitted = scene.ask_again(&request).await.record;
    assert_eq!(admitted.verdict, Verdict::Allow);
    assert_eq!(admitted.action.args["command"], "make deploy DRY_RUN=1");
    assert_eq!(admitted.digest, admitted.action.digest());
    assert_eq!(ok(store.actions(run).await), [admitted]);
    let history = scene.history(run).await;
    let decided = history.iter().find(|event| event.kind.as_str() == "approval.decided");
    let decided = decided.expect("the decision is told");
    assert_eq!(decided.data["edited"]["command"], "make deploy DRY_RUN=1");
    // Once was asked and edited, once more is asked and allowed: the third is a repetition.
    let ask = || scene.request(run, lease, request.action.clone(), Verdict::Allow);
    assert_eq!(scene.admit(&ask()).await.record.verdict, Verdict::Allow);
    assert_eq!(scene.admit(&ask()).await.record.verdict, Verdict::Stop);
}

/// Nobody answers: the approval expires, the run goes on without a yes.
pub async fn silence_is_a_no(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let mut limits = samples::limits();
    limits.approval_timeout_seconds = 60;
    let (run, lease) = scene.running(limits).await;
    let (request, approval) = scene.held(run, lease, "make deploy").await;
    let expired = ok(store.expire(scene.later(59_999)).await);
    assert!(
        expired.iter().all(|other| other.id != approval.id),
        "not before its time"
    );
    let due = scene.later(60_000);
    let answered = store.decide(scene.team, approval.id, answer(Decision::Approve), due);
    let error = refused(answered.await, "an answer after the time");
    assert!(
        matches!(error, StoreError::Decision(DecisionError::Closed { .. })),
        "{error}"
    );
    let expired = ok(store.expire(due).await);
    let ours: Vec<_> = expired.iter().filter(|other| other.run == run).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!((ours[0].id, ours[0].state), (approval.id, ApprovalState::Expired));
    assert_eq!(ok(store.approval(None, approval.id).await), *ours[0]);
    assert_eq!(scene.run(run).await.state(), RunState::Running);
    assert!(ok(store.expire(due).await).iter().all(|other| other.run != run), "once");
    let again = AdmitRequest {
        approval_id: ApprovalId::from_uuid(SystemClock.uuid()),
        now: due,
        ..request
    };
    assert_eq!(ok(store.admit(again).await).record.verdict, Verdict::Deny);
    let told = kinds(&scene.history(run).await[5..]).join(" ");
    assert_eq!(told, "run.waiting approval.expired run.running action.denied");
}
