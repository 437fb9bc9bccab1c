use serde_json::json;
use stockade_domain::{ActionKind, Digest, EventType, Outcome, RuleVerdict};
use stockade_ports::{Activities as _, Store as _};

use crate::support::{
    Wish, World, git,
    model::{Answer, Answers},
    repository, rule,
};

fn doing(command: &str) -> Answers {
    Answers::of(vec![
        Answer::Says("", vec![("bash", json!({ "command": command }))]),
        Answer::Says("All done.", vec![]),
    ])
}

#[tokio::test]
async fn the_change_becomes_a_patch_a_commit_and_a_bundle_that_applies() {
    let (source, repo) = repository();
    let head = git(source.path(), &["rev-parse", "HEAD"]);
    let command = "printf 'Hello\\nworld\\n' > hello.txt; printf 'a\\0b' > bin; mkdir -p ignored sub; echo x > ignored/x; \
        echo y > sub/y; chmod +x sub/y; ln -s sub/y link";
    let world = World::new(Wish {
        repo: Some(repo),
        answers: doing(command),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let result = world.export().await.unwrap();
    let files: Vec<_> = result
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.change.as_str(), f.added))
        .collect();
    assert_eq!(
        files,
        [
            ("bin", "added", None),
            ("hello.txt", "modified", Some(1)),
            ("link", "added", Some(1)),
            ("sub/y", "added", Some(1)),
        ]
    );
    assert_eq!(result.summary, "All done.");
    assert_eq!(result.base_commit.as_deref(), Some(head.as_str()));
    let patch = world.store.artifact(world.id, "patch").await.unwrap();
    assert_eq!(result.patch_digest, Some(Digest::of_bytes(&patch)));
    let bundle = world.store.artifact(world.id, "bundle").await.unwrap();
    let file = world.root.path().join("x.bundle");
    std::fs::write(&file, &bundle).unwrap();
    let branch = result.branch.unwrap();
    git(
        source.path(),
        &["fetch", "-q", file.to_str().unwrap(), &format!("{branch}:{branch}")],
    );
    assert_eq!(
        git(source.path(), &["rev-parse", &branch]),
        result.commit.clone().unwrap()
    );
    assert_eq!(
        git(source.path(), &["show", &format!("{branch}:hello.txt")]),
        "Hello\nworld"
    );
    let log = git(source.path(), &["log", "-1", "--format=%an%n%B", &branch]);
    assert!(
        log.starts_with("Stockade\nFix the greeting") && log.contains(&world.id.to_string()),
        "{log}"
    );
    std::fs::write(world.root.path().join("p"), &patch).unwrap();
    git(
        source.path(),
        &["apply", "--check", world.root.path().join("p").to_str().unwrap()],
    );
    let action = world.store.actions(world.id).await.unwrap().pop().unwrap();
    assert_eq!(
        (action.action.kind, action.outcome),
        (ActionKind::Export, Some(Outcome::Done))
    );
    assert_eq!(action.action.target, "4 files");
    let diff = world.told(EventType::ExportDiff).await.remove(0);
    assert_eq!(
        (&diff["added"], &diff["digest"]),
        (&json!(3), &json!(Digest::of_bytes(&patch)))
    );
    assert_eq!(world.told(EventType::ExportBranch).await[0]["branch"], json!(branch));
}

#[tokio::test]
async fn no_change_leaves_nothing_and_a_run_without_repository_exports_too() {
    let (_keep, repo) = repository();
    let world = World::new(Wish {
        repo: Some(repo),
        answers: doing("cat hello.txt"),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let result = world.export().await.unwrap();
    assert_eq!(
        (result.files.len(), result.branch, result.patch_digest),
        (0, None, None)
    );
    assert!(world.store.artifact(world.id, "patch").await.is_err());

    let world = World::new(Wish {
        answers: doing("echo poem > poem.txt"),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let result = world.export().await.unwrap();
    assert_eq!(result.files[0].path, "poem.txt");
    let bundle = world.store.artifact(world.id, "bundle").await.unwrap();
    let place = world.root.path().join("x.bundle");
    std::fs::write(&place, &bundle).unwrap();
    let copy = world.root.path().join("copy");
    let branch = result.branch.unwrap();
    git(
        world.root.path(),
        &[
            "clone",
            "-q",
            "-b",
            &branch,
            place.to_str().unwrap(),
            copy.to_str().unwrap(),
        ],
    );
    assert_eq!(std::fs::read_to_string(copy.join("poem.txt")).unwrap(), "poem\n");
}

#[tokio::test]
async fn what_an_agent_does_to_its_own_git_does_not_matter() {
    let (_keep, repo) = repository();
    let command = "git config core.hooksPath /workspace/h; mkdir h; printf '#!/bin/sh\\ntouch /workspace/ran' > h/pre-commit; \
        git config filter.x.clean 'touch ran; cat'; echo '* filter=x' > .gitattributes; git rm -q --cached hello.txt; \
        git commit -qm sneaky --no-verify; rm -rf .git/objects; git init -q nested; \
        (cd nested && echo n > n && git add . && git commit -qm n); echo real > real.txt";
    let world = World::new(Wish {
        repo: Some(repo),
        answers: doing(command),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let _ = std::fs::remove_file(world.workspace("ran"));
    let result = world.export().await.unwrap();
    let files: Vec<_> = result.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(files, [".gitattributes", "h/pre-commit", "real.txt"]);
    assert!(
        !world.workspace("ran").exists(),
        "the agent's configuration ran a program"
    );
    let notes = world.told(EventType::ExportDiff).await[0]["notes"].to_string();
    assert!(notes.contains("nested"), "{notes}");
}

#[tokio::test]
async fn an_export_asks_the_gate_and_a_refusal_stores_nothing() {
    let (_keep, repo) = repository();
    let world = World::new(Wish {
        repo: Some(repo),
        rules: vec![rule("diff", RuleVerdict::Deny)],
        answers: doing("echo x > x"),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let failure = world.export().await.unwrap_err();
    assert_eq!(failure.code, "refused");
    assert!(world.store.artifact(world.id, "patch").await.is_err());
}

#[tokio::test]
async fn a_change_that_is_too_large_stays_inside() {
    let world = World::new(Wish {
        max_patch_bytes: 10_000,
        answers: doing("head -c 40000 /dev/urandom | base64 > big"),
        ..Wish::default()
    })
    .await;
    world.work().await.unwrap();
    let failure = world.export().await.unwrap_err();
    assert_eq!(failure.code, "too_large");
    assert!(failure.hint.is_some());
    world.runner.cleanup(world.id).await;
    assert!(!world.root.path().join("state/runs").join(world.id.to_string()).exists());
}
