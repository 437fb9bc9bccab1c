//! Claims, leases and fences.

use std::sync::Arc;

use stockade_domain::{Command, Decision, Failure, RunInput, RunState, Verdict, machine};

use super::scene::{Scene, assert_fenced, assert_illegal, assert_not_found, command, note, ok, run_id};
use crate::{Lease, Store, sim::samples};

/// Twenty workers, one run, one winner.
pub async fn one_worker_wins_a_claim(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let run = scene.queued(samples::limits()).await.id;
    let workers: Vec<_> = (0..20)
        .map(|_| {
            let (store, now) = (Arc::clone(store), scene.now);
            tokio::spawn(async move { store.claim(now).await })
        })
        .collect();
    let mut winners = Vec::new();
    for worker in workers {
        let claim = ok(worker.await.expect("a worker ends"));
        winners.extend(claim.filter(|claim| claim.run.id == run));
    }
    let [winner] = winners.as_slice() else {
        panic!("{} workers have the run", winners.len());
    };
    assert_eq!(winner.step.commands, [Command::Provision]);
    let stored = scene.run(run).await;
    assert_eq!(stored, winner.run);
    assert_eq!((stored.state(), stored.machine.attempt), (RunState::Provisioning, 1));
    assert_eq!(stored.started_at, Some(scene.now));
    scene.step(run, winner.lease, RunInput::Provisioned).await;
}

/// First come, first served, but not before a pause is over.
pub async fn the_oldest_is_claimed_first_and_a_pause_is_kept(store: &Arc<dyn Store>) {
    let mut scene = Scene::new(store);
    // Whatever other cases have left is out of the way.
    while ok(store.claim(scene.now).await).is_some() {}
    let old = scene.queued(samples::limits()).await.id;
    scene.now = scene.later(1);
    let young = scene.queued(samples::limits()).await.id;
    let first = ok(store.claim(scene.now).await).expect("a run is offered");
    assert_eq!(first.run.id, old);
    let busy = RunInput::Fail(Failure::transient("registry", "busy"));
    let (run, step) = ok(store.step(old, Some(first.lease), busy, scene.now).await);
    assert_eq!(run.state(), RunState::Queued);
    let pause = step.commands.iter().find_map(|command| match command {
        Command::Requeue { after_ms } => i64::try_from(*after_ms).ok(),
        _ => None,
    });
    let pause = pause.expect("a transient failure is tried again");
    assert!(pause > 1);
    let next = ok(store.claim(scene.now).await).expect("the younger run is offered");
    assert_eq!(next.run.id, young, "a pause is no reason to wait for others");
    assert!(!scene.offered(old, scene.later(pause - 1)).await, "the pause is kept");
    let again = ok(store.claim(scene.later(pause)).await).expect("the pause is over");
    assert_eq!((again.run.id, again.run.machine.attempt), (old, 2));
    assert!(again.lease.fence > first.lease.fence);
    assert_eq!(again.run.started_at, first.run.started_at, "a run starts once");
    assert!(ok(store.claim(scene.later(pause)).await).is_none());
}

/// Whoever lost a run can do nothing to it any more.
pub async fn an_old_fence_is_worthless(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let (run, old) = scene.running(samples::limits()).await;
    let (_, approval) = scene.held(run, old, "make deploy").await;
    ok(store.step(run, None, RunInput::WorkerLost, scene.now).await);
    refuse_everything(&scene, run, old, "a worker that was given up").await;
    scene.decide(approval.id, Decision::Approve).await;
    let new = scene.claim(run, scene.now).await.lease;
    assert!(new.fence > old.fence);
    refuse_everything(&scene, run, old, "a worker that was replaced").await;
    let before = scene.history(run).await.len();
    let ahead = Lease { fence: new.fence + 1 };
    refuse_everything(&scene, run, ahead, "a lease nobody gave").await;
    assert_eq!(
        scene.history(run).await.len(),
        before,
        "a refusal leaves nothing behind"
    );
    scene.step(run, new, RunInput::Provisioned).await;
    ok(store.append(run, new, vec![note("here")], scene.now).await);
    ok(store.begin_turn(run, new, scene.now).await);
    let allowed = scene.request(run, new, command("ls"), Verdict::Allow);
    assert_eq!(scene.admit(&allowed).await.record.verdict, Verdict::Allow);
}

async fn refuse_everything(scene: &Scene, run: stockade_domain::RunId, lease: Lease, who: &str) {
    let (store, now) = (&scene.store, scene.now);
    assert_fenced(store.append(run, lease, vec![note("ghost")], now).await, who);
    assert_fenced(store.begin_turn(run, lease, now).await, who);
    let admit = scene.request(run, lease, command("ls"), Verdict::Allow);
    assert_fenced(store.admit(admit).await, who);
    for input in [RunInput::Provisioned, RunInput::AgentFinished, RunInput::WorkerLost] {
        assert_fenced(store.step(run, Some(lease), input, now).await, who);
    }
}

/// A worker's reports need its lease; steps with a method of their own are not fed by hand.
pub async fn a_worker_reports_with_its_lease_only(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let run = scene.queued(samples::limits()).await.id;
    let by_hand = store.step(run, None, RunInput::Claim, scene.now);
    assert_illegal(by_hand.await, "a claim without a fence");
    let lease = scene.claim(run, scene.now).await.lease;
    let reports = [
        RunInput::Provisioned,
        RunInput::AgentFinished,
        RunInput::Fail(Failure::terminal("x", "x")),
        RunInput::Stopped,
    ];
    for input in reports {
        assert_fenced(store.step(run, None, input, scene.now).await, "a report of nobody");
    }
    scene.step(run, lease, RunInput::Provisioned).await;
    let (_, approval) = scene.held(run, lease, "make deploy").await;
    let by_hand = store.step(run, Some(lease), RunInput::ApprovalClosed(approval.id), scene.now);
    assert_illegal(by_hand.await, "an answer of nobody");
    assert_eq!(scene.run(run).await.machine.open, [approval.id]);
    // The machine's own refusals come through as such.
    let early = store.step(run, Some(lease), RunInput::Provisioned, scene.now);
    let error = super::scene::refused(early.await, "a second provisioning");
    let machine = scene.run(run).await.machine;
    let expected = machine::step(&machine, RunInput::Provisioned).expect_err("illegal here");
    assert!(
        matches!(&error, crate::StoreError::Illegal(found) if *found == expected),
        "{error}"
    );
    assert_not_found(
        store.step(run_id(), None, RunInput::WorkerLost, scene.now).await,
        "no run",
    );
}
