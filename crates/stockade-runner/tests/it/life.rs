use std::sync::atomic::Ordering;

use serde_json::json;
use stockade_domain::{EventType, RepoSpec, RunInput, receipt};
use stockade_ports::{Activities as _, Store as _};

use crate::support::{
    Wish, World, git,
    model::{Answer, Answers},
    repository,
};

#[tokio::test]
async fn a_whole_life_ends_with_a_receipt_and_leaves_nothing() {
    let (_keep, repo) = repository();
    let world = World::new(Wish {
        repo: Some(repo),
        answers: Answers::of(vec![Answer::Says(
            "",
            vec![("bash", json!({ "command": "echo x > x" }))],
        )]),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let result = world.export().await.unwrap();
    assert_eq!(world.runner.seal(world.id).await.unwrap_err().code, "not_terminal");
    world.runner.cleanup(world.id).await;
    world.runner.cleanup(world.id).await;
    world.step(RunInput::Exported(result.clone())).await;
    world.runner.seal(world.id).await.unwrap();
    world.runner.seal(world.id).await.unwrap();
    assert!(!world.root.path().join("state/runs").join(world.id.to_string()).exists());
    assert_eq!(world.sessions.opened.load(Ordering::SeqCst), 1);
    assert_eq!(world.sessions.closed.load(Ordering::SeqCst), 1);
    assert_eq!(world.told(EventType::SandboxEnded).await.len(), 1);
    let file = world.store.artifact(world.id, "receipt").await.unwrap();
    let statement = receipt::verify(&file, &world.key.verifying_key()).unwrap();
    assert_eq!(statement.subject[0].digest.sha256, result.patch_digest.unwrap().hex());
    assert_eq!(statement.predicate.sandboxes[0]["backend"], "unisolated");
    assert_eq!(statement.predicate.files.len(), 1);
    assert!(statement.predicate.actions.len() >= 4, "model, tool, model, export");
    let mut forged = file.to_vec();
    forged[40] ^= 1;
    assert!(receipt::verify(&forged, &world.key.verifying_key()).is_err());
}

#[tokio::test]
async fn provisioning_tells_what_it_made_and_what_it_left_out() {
    let (source, repo) = repository();
    std::fs::write(source.path().join("hello.txt"), "changed, not committed\n").unwrap();
    let world = World::new(Wish {
        repo: Some(repo),
        ..Wish::default()
    })
    .await;
    world.provision().await.unwrap();
    let sandbox = world.told(EventType::SandboxReady).await.remove(0);
    assert_eq!(
        (&sandbox["backend"], &sandbox["attempt"]),
        (&json!("unisolated"), &json!(1))
    );
    let ready = world.told(EventType::RepoReady).await.remove(0);
    assert_eq!(ready["base_commit"], git(source.path(), &["rev-parse", "HEAD"]));
    assert_eq!((&ready["branch"], &ready["files"]), (&json!("main"), &json!(2)));
    assert!(ready["notes"][0].as_str().unwrap().contains("uncommitted"));
    assert_eq!(
        std::fs::read_to_string(world.workspace("hello.txt")).unwrap(),
        "Helo\nworld\n"
    );
    // Again, as after a failed first attempt: the first place goes.
    world.runner.provision(&world.run().await, world.lease).await.unwrap();
    assert_eq!(world.sessions.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_missing_repository_fails_before_anything_is_made() {
    let world = World::new(Wish {
        repo: Some(RepoSpec {
            source: "/nonexistent/repository".to_owned(),
            reference: None,
        }),
        ..Wish::default()
    })
    .await;
    let failure = world.provision().await.unwrap_err();
    assert_eq!(failure.code, "repo_not_found");
    assert_eq!(world.sessions.opened.load(Ordering::SeqCst), 0);
    world.runner.cleanup(world.id).await;
    assert!(!world.root.path().join("state/runs").join(world.id.to_string()).exists());
}

#[tokio::test]
async fn a_stop_before_or_during_provisioning_is_not_lost() {
    let world = World::new(Wish::default()).await;
    world.runner.stop(world.id).await;
    assert_eq!(world.provision().await.unwrap_err().code, "stopped");
    world.runner.cleanup(world.id).await;
    world.provision().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_ends_under_its_run_ends_the_run() {
    let world = World::new(Wish {
        answers: Answers::of(vec![Answer::Silence]),
        ..Wish::default()
    })
    .await;
    world.provision().await.unwrap();
    let (driven, ()) = tokio::join!(world.drive(), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        world.sandbox.end(world.id);
    });
    assert_eq!(driven.unwrap_err().code, "sandbox_gone");
}

#[tokio::test]
async fn a_guard_that_is_lost_ends_the_run() {
    let world = World::new(Wish {
        answers: Answers::of(vec![Answer::Silence]),
        ..Wish::default()
    })
    .await;
    world.provision().await.unwrap();
    assert_eq!(
        world.sessions.released.load(Ordering::SeqCst),
        1,
        "a proved sandbox's session decides by its rules"
    );
    let (driven, ()) = tokio::join!(world.drive(), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        world.sessions.lose();
    });
    let failure = driven.unwrap_err();
    assert_eq!(failure.code, "guard_lost");
    assert!(failure.message.contains("the test took it away"), "{failure:?}");
}

#[tokio::test]
async fn a_sandbox_whose_attempts_the_guard_never_saw_is_not_used() {
    let world = World::new(Wish::default()).await;
    world.sessions.blind.store(true, Ordering::SeqCst);
    let failure = world.provision().await.unwrap_err();
    assert!(failure.message.contains("egress.guarded"), "{failure:?}");
    assert_eq!(world.sessions.released.load(Ordering::SeqCst), 0);
    assert!(world.sandbox.dir_of(world.id).is_none(), "it was destroyed");
}

#[tokio::test]
async fn leftovers_of_a_dead_process_are_removed_at_boot_and_nothing_else() {
    let world = World::new(Wish::default()).await;
    world.provision().await.unwrap();
    let runs = world.root.path().join("state/runs");
    std::fs::create_dir(runs.join("run_0000000000000000000000000000000a")).unwrap();
    std::fs::create_dir(runs.join("notes")).unwrap();
    world.runner.recover().await.unwrap();
    assert!(!runs.join("run_0000000000000000000000000000000a").exists());
    assert!(runs.join("notes").exists() && runs.join(world.id.to_string()).exists());
}
