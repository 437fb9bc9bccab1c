//! Actions: admitted once, settled once, watched for loops.

use std::sync::Arc;

use stockade_domain::{ApprovalId, Decision, Outcome, RunState, Verdict, admission::AdmitRequest};

use super::scene::{Scene, action_id, assert_illegal, assert_not_found, command, kinds, ok, requests, run_id};
use crate::{Clock, Settle, Store, SystemClock, sim::samples};

/// The end of an action is told once, for the run it belongs to.
pub async fn an_action_is_settled_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let request = scene.request(run, lease, command("make"), Verdict::Allow);
    scene.admit(&request).await;
    let settle = scene.settle(run, request.id, requests(0));
    let elsewhere = Settle {
        run: run_id(),
        ..settle.clone()
    };
    assert_not_found(store.settle(elsewhere).await, "a settlement of another run");
    let unknown = Settle {
        id: action_id(),
        ..settle.clone()
    };
    assert_not_found(store.settle(unknown).await, "a settlement of no action");
    let failed = Outcome::Failed {
        error: "exit 2".to_owned(),
    };
    let settled = ok(store
        .settle(Settle {
            outcome: failed.clone(),
            ..settle.clone()
        })
        .await);
    assert_eq!(
        (settled.outcome.clone(), settled.settled_at),
        (Some(failed), Some(scene.now))
    );
    assert_illegal(store.settle(settle).await, "a second settlement");
    assert_eq!(ok(store.actions(run).await), [settled]);
    let history = scene.history(run).await;
    assert_eq!(kinds(&history[3..]), ["action.admitted", "action.settled"]);
    assert_eq!(history[4].data["details"]["exit"], 0);
    let denied = scene.request(run, lease, command("rm"), Verdict::Deny);
    scene.admit(&denied).await;
    let settle = scene.settle(run, denied.id, requests(0));
    assert_illegal(store.settle(settle).await, "a settlement of a denied action");
}

/// Who lost the answer cannot ask again under the same id and run the effect twice.
pub async fn an_action_is_admitted_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let request = AdmitRequest {
        reserve: requests(1),
        ..scene.request(run, lease, command("make"), Verdict::Allow)
    };
    scene.admit(&request).await;
    assert_illegal(store.admit(request.clone()).await, "the same action again");
    let other = AdmitRequest {
        action: command("make install"),
        ..request.clone()
    };
    assert_illegal(store.admit(other).await, "another action under a known id");
    assert_eq!(scene.run(run).await.budget.reserved, requests(1));
    let (held, approval) = scene.held(run, lease, "make deploy").await;
    let swapped = AdmitRequest {
        action: command("make destroy"),
        ..held.clone()
    };
    assert_illegal(store.admit(swapped).await, "another action in the place of a held one");
    let stolen = AdmitRequest {
        approval_id: approval.id,
        ..scene.request(run, lease, command("make release"), Verdict::Hold)
    };
    assert_illegal(store.admit(stolen).await, "a new question in the place of an old one");
    assert_eq!(ok(store.approval(None, approval.id).await), approval);
    let fresh = scene.request(run, lease, command("make"), Verdict::Allow);
    assert_eq!(scene.admit(&fresh).await.record.verdict, Verdict::Allow);
    let order: Vec<_> = ok(store.actions(run).await)
        .into_iter()
        .map(|action| action.id)
        .collect();
    assert_eq!(order, [request.id, held.id, fresh.id], "in the order they were asked");
    assert_eq!(scene.history(run).await.len(), 3 + 1 + 3 + 1);
}

/// The same call again and again without anything new goes to a person, whose yes starts anew.
pub async fn a_repeated_action_asks_a_person(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, lease) = scene.running(samples::limits()).await;
    let ask = || scene.request(run, lease, command("make test"), Verdict::Allow);
    for _ in 0..2 {
        assert_eq!(scene.admit(&ask()).await.record.verdict, Verdict::Allow);
    }
    let third = ask();
    let stopped = scene.admit(&third).await;
    assert_eq!(stopped.record.verdict, Verdict::Stop);
    let approval = stopped.approval.expect("a person is asked");
    assert!(approval.repetition);
    assert_eq!(scene.run(run).await.state(), RunState::Waiting);
    let history = scene.history(run).await;
    assert_eq!(
        kinds(&history[5..]),
        ["action.stopped", "approval.requested", "run.waiting"]
    );
    scene.decide(approval.id, Decision::Approve).await;
    assert_eq!(scene.ask_again(&third).await.record.verdict, Verdict::Allow);
    for _ in 0..2 {
        assert_eq!(
            scene.admit(&ask()).await.record.verdict,
            Verdict::Allow,
            "the count starts anew"
        );
    }
    assert_eq!(scene.admit(&ask()).await.record.verdict, Verdict::Stop);
    // Something new is progress, and asking in between does not count against it.
    let (new, lease) = scene.running(samples::limits()).await;
    for turn in 0..4 {
        let edit = scene.request(new, lease, command(&format!("edit {turn}")), Verdict::Allow);
        assert_eq!(scene.admit(&edit).await.record.verdict, Verdict::Allow);
        let test = AdmitRequest {
            approval_id: ApprovalId::from_uuid(SystemClock.uuid()),
            ..scene.request(new, lease, command("make test"), Verdict::Allow)
        };
        assert_eq!(scene.admit(&test).await.record.verdict, Verdict::Allow);
    }
}
