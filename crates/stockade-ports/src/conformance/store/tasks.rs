//! Tasks, runs, and who sees them.

use std::sync::Arc;

use futures::future::join_all;
use stockade_domain::{Decision, RunState};

use super::scene::{Scene, answer, assert_not_found, kinds, ok, refused, run_id, task_id};
use crate::{CreateRun, CreateTask, Store, StoreError, sim::samples};

/// A task is stored with its first run, which has its first event.
pub async fn a_task_comes_with_its_first_run(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let request = scene.create("write it", Some(samples::limits()), None);
    let created = scene.created(request.clone()).await;
    let run = created.run.expect("a run was asked for");
    assert!(!created.replayed);
    assert_eq!((created.task.id, created.task.team), (request.id, scene.team));
    assert_eq!(ok(store.task(scene.team, request.id).await), created.task);
    assert_eq!(
        (run.state(), run.task, run.team),
        (RunState::Queued, request.id, scene.team)
    );
    assert_eq!(Some(&run.spec), request.run.as_ref().map(|run| &run.spec));
    assert_eq!((run.started_at, run.ended_at), (None, None));
    assert_eq!(
        ok(store.run(None, run.id).await),
        run,
        "the installation sees every run"
    );
    assert_eq!(kinds(&scene.history(run.id).await), ["run.queued"]);
    let alone = scene.created(scene.create("think first", None, None)).await;
    assert!(alone.run.is_none());
    let second = CreateRun {
        id: run_id(),
        spec: samples::spec(samples::limits()),
    };
    let second = ok(store
        .create_run(scene.team, alone.task.id, second, None, scene.now)
        .await);
    let second = second.run.expect("a run was asked for");
    assert_eq!((second.task, second.state()), (alone.task.id, RunState::Queued));
    assert_eq!(kinds(&scene.history(second.id).await), ["run.queued"]);
}

/// The same key gives the same task, also at the same time; another request is refused.
pub async fn a_key_makes_a_task_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let tries = (0..20).map(|_| {
        let request = scene.create("once", Some(samples::limits()), Some("key"));
        scene.created(request)
    });
    let created = join_all(tries).await;
    assert_eq!(created.iter().filter(|created| !created.replayed).count(), 1);
    let first = &created[0];
    assert!(
        created
            .iter()
            .all(|other| other.task == first.task && other.run == first.run)
    );
    assert_eq!(ok(store.tasks(scene.team, None, 100).await).len(), 1);
    assert_eq!(ok(store.runs(Some(scene.team), &[], None, 100).await).len(), 1);
    let other = scene.create("something else", Some(samples::limits()), Some("key"));
    let error = refused(
        store.create_task(other.clone()).await,
        "a used key with another request",
    );
    assert!(matches!(error, StoreError::KeyReused { .. }), "{error}");
    let fresh = CreateTask {
        idempotency_key: Some("another key".to_owned()),
        ..other
    };
    assert!(!scene.created(fresh).await.replayed);
    let elsewhere = Scene::new(store);
    let same_key = elsewhere.create("something else", None, Some("key"));
    assert!(!elsewhere.created(same_key).await.replayed, "keys belong to a team");
}

/// The same key gives the same further run.
pub async fn a_key_makes_a_run_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let task = scene.created(scene.create("twice", None, None)).await.task.id;
    let run = |limits| CreateRun {
        id: run_id(),
        spec: samples::spec(limits),
    };
    let key = || Some("key".to_owned());
    let create = |run| store.create_run(scene.team, task, run, key(), scene.now);
    let first = ok(create(run(samples::limits())).await);
    let again = ok(create(run(samples::limits())).await);
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.run, again.run);
    let mut other = samples::limits();
    other.wall_clock_seconds += 1;
    let error = refused(create(run(other)).await, "a used key with another run");
    assert!(matches!(error, StoreError::KeyReused { .. }), "{error}");
    assert_eq!(ok(store.runs(Some(scene.team), &[], None, 100).await).len(), 1);
    let unknown = store.create_run(scene.team, task_id(), run(samples::limits()), None, scene.now);
    assert_not_found(unknown.await, "a run of no task");
}

/// A known id never takes the place of what has it, and leaves nothing half-made.
pub async fn an_id_is_given_once(store: &Arc<dyn Store>) {
    let scene = Scene::new(store);
    let first = scene.create("first", Some(samples::limits()), None);
    scene.created(first.clone()).await;
    let same_task = CreateTask {
        prompt: "second".to_owned(),
        ..scene.create("second", None, None)
    };
    let same_task = CreateTask {
        id: first.id,
        ..same_task
    };
    refused(store.create_task(same_task).await, "a known task id");
    let mut same_run = scene.create("third", Some(samples::limits()), None);
    same_run.run = first.run.clone();
    refused(store.create_task(same_run.clone()).await, "a known run id");
    assert_not_found(store.task(scene.team, same_run.id).await, "the task of a refused run");
    assert_eq!(ok(store.task(scene.team, first.id).await).prompt, "first");
    assert_eq!(ok(store.runs(Some(scene.team), &[], None, 100).await).len(), 1);
}

/// Lists begin with the newest and go on before a place.
pub async fn lists_are_newest_first_and_paged(store: &Arc<dyn Store>) {
    let mut scene = Scene::new(store);
    let (mut tasks, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let created = scene
            .created(scene.create("one of five", Some(samples::limits()), None))
            .await;
        tasks.insert(0, created.task.id);
        runs.insert(0, created.run.expect("a run was asked for").id);
        scene.now = scene.later(1);
    }
    let task_page = async |before, limit| {
        let page = ok(store.tasks(scene.team, before, limit).await);
        page.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(task_page(None, 100).await, tasks);
    assert_eq!(task_page(None, 2).await, tasks[..2]);
    assert_eq!(task_page(Some(tasks[1]), 2).await, tasks[2..4]);
    assert_eq!(task_page(Some(tasks[4]), 2).await, []);
    let run_page = async |states: &[RunState], before, limit| {
        let page = ok(store.runs(Some(scene.team), states, before, limit).await);
        page.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(run_page(&[], None, 100).await, runs);
    assert_eq!(run_page(&[], Some(runs[1]), 2).await, runs[2..4]);
    scene.claim(runs[3], scene.now).await;
    // The older one was in the way.
    assert_eq!(run_page(&[RunState::Provisioning], None, 100).await, runs[3..]);
    assert_eq!(
        run_page(&[RunState::Queued, RunState::Failed], None, 100).await,
        runs[..3]
    );
    assert_not_found(store.tasks(scene.team, Some(task_id()), 1).await, "an unknown place");
}

/// What belongs to one team is not there for another.
pub async fn teams_do_not_see_each_other(store: &Arc<dyn Store>) {
    let (ours, theirs) = (Scene::new(store), Scene::new(store));
    let (run, lease) = ours.running(samples::limits()).await;
    let (_, approval) = ours.held(run, lease, "make deploy").await;
    let task = ours.run(run).await.task;
    let them = theirs.team;
    assert_not_found(store.task(them, task).await, "another team's task");
    assert_not_found(store.run(Some(them), run).await, "another team's run");
    assert_not_found(store.approval(Some(them), approval.id).await, "another team's approval");
    assert_eq!(ok(store.tasks(them, None, 100).await), []);
    assert_eq!(ok(store.runs(Some(them), &[], None, 100).await), []);
    assert_eq!(ok(store.approvals(Some(them), Some(run), None, 100).await), []);
    let decided = store.decide(them, approval.id, answer(Decision::Approve), ours.now);
    assert_not_found(decided.await, "another team's decision");
    let said = store.push_message(them, run, "eve".to_owned(), "hello".to_owned(), false, ours.now);
    assert_not_found(said.await, "another team's message");
    let new = CreateRun {
        id: run_id(),
        spec: samples::spec(samples::limits()),
    };
    assert_not_found(
        store.create_run(them, task, new, None, ours.now).await,
        "another team's run of a task",
    );
    // The same is there for its own team.
    let us = ours.team;
    assert_eq!(ok(store.approval(Some(us), approval.id).await), approval);
    assert_eq!(ok(store.approval(None, approval.id).await), approval);
    assert_eq!(
        ok(store.approvals(Some(us), None, None, 100).await),
        std::slice::from_ref(&approval)
    );
    assert_eq!(ok(store.runs(Some(us), &[], None, 100).await).len(), 1);
    ours.decide(approval.id, Decision::Approve).await;
}
