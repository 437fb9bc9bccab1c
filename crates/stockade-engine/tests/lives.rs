//! The lives of single runs. Time is paused: it flies whenever everybody waits.

mod support;

use std::time::Duration;

use stockade_domain::{Decision, Failure, RunState};
use stockade_engine::EmbeddedEngine;
use stockade_ports::{Engine, EngineError, Store, sim::samples};
use support::{Move, Plan, World};
use tokio::time::sleep;

fn drive(moves: Vec<Move>) -> Plan {
    Plan {
        drive: moves,
        ..Plan::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_run_completes_and_is_sealed() {
    let world = World::new();
    let engine = world.engine().await;
    let run = world.queue(drive(vec![Move::Work(50), Move::Model])).await;
    let sealed = world.until_sealed(run).await;
    assert_eq!(sealed.state(), RunState::Completed);
    assert_eq!(sealed.result.unwrap().summary, "played");
    assert_eq!(world.puppet.log(run), "provision drive export cleanup seal");
    let told = "run.queued run.provisioning run.running action.admitted model.call run.completed";
    assert_eq!(world.told(run).await, told);
    world.check().await;
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_action_goes_on_with_the_answer() {
    let world = World::new();
    let _engine = world.engine().await;
    let run = world.queue(drive(vec![Move::Ask("make deploy")])).await;
    world.until_state(run, RunState::Waiting).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.run(run).await.state(), RunState::Waiting);
    assert!(world.puppet.effects(run).is_empty());
    let approval = &world.pending(run).await[0];
    world.decide(approval, Decision::Approve).await.unwrap();
    assert_eq!(world.until_sealed(run).await.state(), RunState::Completed);
    assert_eq!(world.puppet.effects(run).len(), 1);
    assert_eq!(world.puppet.log(run), "provision drive export cleanup seal");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn silence_expires_and_the_run_goes_on_without() {
    let world = World::new();
    let _engine = world.engine().await;
    let mut limits = samples::limits();
    limits.approval_timeout_seconds = 5;
    let run = world.queue_with(drive(vec![Move::Ask("make deploy")]), limits).await;
    assert_eq!(world.until_sealed(run).await.state(), RunState::Completed);
    assert!(world.puppet.effects(run).is_empty());
    assert!(
        world
            .told(run)
            .await
            .contains("approval.expired run.running action.denied")
    );
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_cancelled_in_every_phase() {
    let forever = || vec![Move::Forever];
    let phases = [
        (
            "provision",
            Plan {
                provision: forever(),
                ..Plan::default()
            },
        ),
        ("drive", drive(forever())),
        ("drive", drive(vec![Move::Ask("make deploy")])),
        (
            "export",
            Plan {
                export: forever(),
                ..Plan::default()
            },
        ),
    ];
    for (phase, plan) in phases {
        let world = World::new();
        let engine = world.engine().await;
        let run = world.queue(plan).await;
        world
            .until(run, phase, |_| world.puppet.log(run).ends_with(phase))
            .await;
        sleep(Duration::from_millis(100)).await;
        world.cancel(&engine, run).await.unwrap();
        let ended = world.until_sealed(run).await;
        assert_eq!(ended.state(), RunState::Cancelled, "{phase}");
        assert!(
            world.puppet.log(run).ends_with(&format!("{phase} stop cleanup seal")),
            "{}",
            world.puppet.log(run)
        );
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_queued_run_is_cancelled_at_once_and_sealed_on_a_hint() {
    let mut world = World::new();
    world.config.max_concurrent = 1;
    let engine = world.engine().await;
    let busy = world.queue(drive(vec![Move::Forever])).await;
    world.until_state(busy, RunState::Running).await;
    let run = world.queue(Plan::default()).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.run(run).await.state(), RunState::Queued, "there is one place");
    world.cancel(&engine, run).await.unwrap();
    assert_eq!(world.until_sealed(run).await.state(), RunState::Cancelled);
    assert_eq!(world.puppet.log(run), "seal");
    world.cancel(&engine, busy).await.unwrap();
    world.until_sealed(busy).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_stop_is_dropped() {
    let world = World::new();
    let engine = world.engine().await;
    let run = world.queue(drive(vec![Move::Deaf])).await;
    world.until_state(run, RunState::Running).await;
    world.cancel(&engine, run).await.unwrap();
    sleep(world.config.grace / 2).await;
    assert_eq!(world.run(run).await.state(), RunState::Running, "it has its grace");
    assert_eq!(world.until_sealed(run).await.state(), RunState::Cancelled);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn provisioning_is_tried_again_and_terminal_failures_are_not() {
    let world = World::new();
    let _engine = world.engine().await;
    let plan = |failure| Plan {
        provision: vec![Move::FailFirst(2, failure)],
        ..Plan::default()
    };
    let flaky = world.queue(plan(Failure::transient("registry", "busy"))).await;
    let ended = world.until_sealed(flaky).await;
    assert_eq!((ended.state(), ended.machine.attempt), (RunState::Completed, 3));
    let log = "provision cleanup provision cleanup provision drive export cleanup seal";
    assert_eq!(world.puppet.log(flaky), log);
    let broken = world.queue(plan(Failure::terminal("disk_full", "no space left"))).await;
    let ended = world.until_sealed(broken).await;
    assert_eq!((ended.state(), ended.machine.attempt), (RunState::Failed, 1));
    assert_eq!(ended.failure.unwrap().code, "disk_full");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_wall_clock_ends_a_run_also_while_it_waits() {
    for moves in [vec![Move::Forever], vec![Move::Ask("make deploy")], vec![Move::Deaf]] {
        let world = World::new();
        let _engine = world.engine().await;
        let mut limits = samples::limits();
        limits.wall_clock_seconds = 30;
        let run = world.queue_with(drive(moves), limits).await;
        let short = world.queue_with(drive(vec![Move::Work(29_000)]), limits).await;
        let ended = world.until_sealed(run).await;
        assert_eq!(ended.state(), RunState::Failed);
        assert_eq!(ended.failure.unwrap().code, "wall_clock");
        let lived = ended.ended_at.unwrap().as_second() - ended.started_at.unwrap().as_second();
        assert!((30..60).contains(&lived), "{lived}");
        assert_eq!(world.until_sealed(short).await.state(), RunState::Completed);
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_nobody_knows_the_end_of() {
    let world = World::new();
    let _engine = world.engine().await;
    for plan in [
        Plan {
            provision: vec![Move::Panic],
            ..Plan::default()
        },
        drive(vec![Move::Panic]),
        Plan {
            export: vec![Move::Panic],
            ..Plan::default()
        },
    ] {
        let run = world.queue(plan).await;
        let ended = world.until_sealed(run).await;
        assert_eq!((ended.state(), ended.machine.attempt), (RunState::Failed, 1));
        assert_eq!(ended.failure.unwrap().code, "panic");
    }
    let after = world.queue(Plan::default()).await;
    assert_eq!(world.until_sealed(after).await.state(), RunState::Completed);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_seal_is_tried_again_now_and_at_the_next_start() {
    let world = World::new();
    let engine = world.engine().await;
    let transient = Failure::transient("store", "busy");
    let seal = |moves| Plan {
        seal: moves,
        ..Plan::default()
    };
    let soon = world.queue(seal(vec![Move::FailFirst(2, transient)])).await;
    world.until_sealed(soon).await;
    assert!(world.puppet.log(soon).ends_with("seal seal seal"));
    let later = world
        .queue(seal(vec![Move::FailFirst(1, Failure::terminal("key", "no key"))]))
        .await;
    world.until_state(later, RunState::Completed).await;
    engine.shutdown().await;
    drop(engine);
    let _again = world.engine().await;
    world.until_sealed(later).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_is_waited_for() {
    let world = World::new();
    let _engine = world.engine().await;
    let run = world.queue(drive(vec![Move::Work(1000)])).await;
    world.until_state(run, RunState::Running).await;
    world.store.unavailable(true);
    sleep(Duration::from_secs(3)).await;
    world.store.unavailable(false);
    assert_eq!(world.until_sealed(run).await.state(), RunState::Completed);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_leaves_the_run_to_the_recovery() {
    let world = World::new();
    let engine = world.engine().await;
    let run = world.queue(drive(vec![Move::Work(1000)])).await;
    world.until_state(run, RunState::Running).await;
    world.store.unavailable(true);
    sleep(Duration::from_secs(60)).await;
    assert!(!world.puppet.has_sandbox(run), "no sandbox is left behind");
    world.store.unavailable(false);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.run(run).await.state(), RunState::Running, "nobody guesses");
    world.kill(engine).await;
    let _again = world.engine().await;
    let ended = world.until_sealed(run).await;
    assert_eq!(ended.failure.unwrap().code, "interrupted");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_answer_is_lost_is_not_done_twice() {
    let part = |millis| vec![Move::Work(millis)];
    // Provisioned, AgentFinished and Exported come 100, 200 and 300 ms after the claim.
    let plan = || Plan {
        provision: part(100),
        drive: part(100),
        export: part(100),
        seal: Vec::new(),
    };
    for before in [50, 150, 250] {
        let world = World::new();
        let _engine = world.engine().await;
        let run = world.queue(plan()).await;
        world.until_state(run, RunState::Provisioning).await;
        sleep(Duration::from_millis(before)).await;
        world.store.lose_steps(1);
        assert_eq!(world.until_sealed(run).await.state(), RunState::Completed);
        let log = world.puppet.log(run);
        for once in ["provision", "drive", "export", "seal"] {
            assert_eq!(log.matches(once).count(), 1, "{before}: {log}");
        }
        world.check().await;
    }
    let world = World::new();
    let _engine = world.engine().await;
    let busy = Failure::transient("registry", "busy");
    let provision = vec![Move::Work(100), Move::FailFirst(1, busy)];
    let run = world
        .queue(Plan {
            provision,
            ..Plan::default()
        })
        .await;
    world.until_state(run, RunState::Provisioning).await;
    world.store.lose_steps(1);
    let ended = world.until_sealed(run).await;
    assert_eq!((ended.state(), ended.machine.attempt), (RunState::Completed, 2));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_engine_is_recovered_honestly() {
    let world = World::new();
    let engine = world.engine().await;
    let waiting = world.queue(drive(vec![Move::Ask("make deploy")])).await;
    let running = world.queue(drive(vec![Move::Model, Move::Forever])).await;
    let provision = vec![Move::Work(2000)];
    let preparing = world
        .queue(Plan {
            provision,
            ..Plan::default()
        })
        .await;
    world.until_state(waiting, RunState::Waiting).await;
    world.until_state(running, RunState::Running).await;
    world.until_state(preparing, RunState::Provisioning).await;
    sleep(Duration::from_millis(50)).await;
    world.kill(engine).await;
    let _again = world.engine().await;
    let lost = world.until_sealed(running).await;
    assert_eq!(
        (lost.state(), lost.failure.unwrap().code.as_str()),
        (RunState::Failed, "interrupted")
    );
    let second = world.until_sealed(preparing).await;
    assert_eq!((second.state(), second.machine.attempt), (RunState::Completed, 2));
    sleep(Duration::from_secs(30)).await;
    let still = world.run(waiting).await;
    assert_eq!((still.state(), still.machine.attached), (RunState::Waiting, false));
    let approval = &world.pending(waiting).await[0];
    world.decide(approval, Decision::Approve).await.unwrap();
    let ended = world.until_sealed(waiting).await;
    assert_eq!((ended.state(), ended.machine.attempt), (RunState::Completed, 2));
    assert_eq!(
        world.puppet.effects(waiting).len(),
        1,
        "the answer was used by the second attempt"
    );
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_go_of_what_is_in_hand() {
    let world = World::new();
    let engine = world.engine().await;
    let waiting = world.queue(drive(vec![Move::Ask("make deploy")])).await;
    let running = world.queue(drive(vec![Move::Deaf])).await;
    let provision = vec![Move::Forever];
    let preparing = world
        .queue(Plan {
            provision,
            ..Plan::default()
        })
        .await;
    world.until_state(waiting, RunState::Waiting).await;
    world.until_state(running, RunState::Running).await;
    world.until_state(preparing, RunState::Provisioning).await;
    engine.shutdown().await;
    let states = [waiting, running, preparing].map(|run| (run, world.puppet.has_sandbox(run)));
    assert!(states.iter().all(|(_, sandbox)| !sandbox), "{states:?}");
    assert_eq!(world.run(waiting).await.state(), RunState::Waiting);
    assert_eq!(world.run(preparing).await.state(), RunState::Queued);
    let ended = world.run(running).await;
    assert_eq!(ended.failure.unwrap().code, "interrupted");
    let late = world.queue(Plan::default()).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.run(late).await.state(),
        RunState::Queued,
        "nothing is taken any more"
    );
    engine.shutdown().await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn places_are_limited_and_given_on() {
    let mut world = World::new();
    world.config.max_concurrent = 2;
    let _engine = world.engine().await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(world.queue(drive(vec![Move::Work(1000)])).await);
    }
    let mut most = 0;
    loop {
        let list = world.store.runs(None, &[], None, 100).await.unwrap();
        most = most.max(list.iter().filter(|run| run.machine.attached).count());
        if list.iter().all(|run| run.state() == RunState::Completed) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(most, 2);
    for run in runs {
        world.until_sealed(run).await;
    }
    world.check().await;
}

#[tokio::test]
async fn a_second_engine_is_refused_and_told_who_has_the_lock() {
    let world = World::new();
    let engine = world.engine().await;
    let second = || {
        let (store, bus, clock) = (world.store.clone(), world.bus.clone(), world.clock.clone());
        EmbeddedEngine::start(store, bus, clock, world.puppet.clone(), world.config.clone())
    };
    let Err(EngineError::AlreadyRunning { place, holder }) = second().await else {
        panic!("two engines drive one store");
    };
    assert_eq!(holder, std::process::id().to_string());
    assert_eq!(place, world.config.lock_path.parent().unwrap().display().to_string());
    engine.shutdown().await;
    drop(engine);
    second().await.expect("the lock is free again");
    let mut nowhere = world.config.clone();
    nowhere.lock_path = nowhere.lock_path.join("no/such/place");
    let (store, bus, clock) = (world.store.clone(), world.bus.clone(), world.clock.clone());
    let refused = EmbeddedEngine::start(store, bus, clock, world.puppet.clone(), nowhere).await;
    assert!(matches!(refused, Err(EngineError::Broken(why)) if why.contains("no/such/place")));
}

#[tokio::test]
async fn without_a_store_no_engine() {
    let mut world = World::new();
    world.config.attempts = 1;
    world.store.unavailable(true);
    let (store, bus, clock) = (world.store.clone(), world.bus.clone(), world.clock.clone());
    let refused = EmbeddedEngine::start(store, bus, clock, world.puppet.clone(), world.config.clone()).await;
    assert!(matches!(refused, Err(EngineError::Broken(_))));
}
