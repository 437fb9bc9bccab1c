//! What cannot be published is refused before a run exists.

use serde_json::{Value, json};

use crate::harness::Harness;

fn task(repo: &str, publish: Value) -> Value {
    json!({ "prompt": "x", "agent": "careful", "repo": repo, "publish": publish })
}

async fn with_secret() -> Harness {
    let harness = Harness::start().await;
    let set = crate::raw::Call::new("PUT", "/v1/secrets/BOT")
        .header("Content-Type", "application/octet-stream")
        .bytes(b"long-enough-value");
    assert_eq!(harness.call(set).await.status, 201);
    harness
}

#[tokio::test]
async fn a_run_keeps_its_host_and_what_is_wanted() {
    let harness = with_secret().await;
    let wanted = json!({ "pull_request": { "base": "main", "draft": true } });
    let answer = harness
        .post(
            "/v1/tasks",
            task("https://git.example.com/octo/hello.git", wanted.clone()),
        )
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let spec = &answer.json()["run"]["spec"];
    assert_eq!(spec["git_host"]["name"], "forge");
    assert_eq!(spec["git_host"]["credential"]["secret"], "BOT");
    assert_eq!(spec["publish"], wanted);
    // A push needs no API and no credential; whether the server takes it shows later.
    for repo in ["https://plain.example.com/a/b/c.git", "https://elsewhere.example/x"] {
        let answer = harness.post("/v1/tasks", task(repo, json!({}))).await;
        assert_eq!(answer.status, 201, "{repo}: {}", answer.text());
    }
    let plain = harness
        .post("/v1/tasks", json!({ "prompt": "x", "agent": "careful", "repo": "/r" }))
        .await;
    assert_eq!(plain.json()["run"]["spec"].get("git_host"), None);
}

#[tokio::test]
async fn what_could_only_fail_later_is_refused_at_once() {
    let harness = with_secret().await;
    let pull = || json!({ "pull_request": {} });
    for (repo, publish, field, words) in [
        ("/srv/repo", pull(), "publish", "not a repository on a server"),
        ("/srv/repo", json!({}), "publish", "not a repository on a server"),
        (
            "git://git.example.com/octo/hello",
            json!({}),
            "publish",
            "not a repository on a server",
        ),
        (
            "https://elsewhere.example/o/r",
            pull(),
            "publish.pull_request",
            "at no git host",
        ),
        (
            "https://plain.example.com/o/r",
            pull(),
            "publish.pull_request",
            "has no API",
        ),
        (
            "https://open.example.com/o/r",
            pull(),
            "publish.pull_request",
            "has no credential",
        ),
        (
            "https://git.example.com/a/b/c",
            pull(),
            "publish.pull_request",
            "owner/name",
        ),
        (
            "https://git.example.com/o/r",
            json!({ "pull_request": { "base": "-x" } }),
            "publish.pull_request.base",
            "begin with '-'",
        ),
        (
            "https://git.example.com/o/r",
            json!({ "pull_request": { "title": "" } }),
            "publish.pull_request.title",
            "1 to 256",
        ),
    ] {
        let answer = harness.post("/v1/tasks", task(repo, publish)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "unpublishable"),
            "{repo}: {}",
            answer.text()
        );
        let problem = answer.json();
        assert_eq!(problem["field"], field, "{repo}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        assert!(problem["hint"].is_string(), "{problem}");
    }
    let nowhere = json!({ "prompt": "x", "agent": "careful", "publish": {} });
    assert_eq!(harness.post("/v1/tasks", nowhere).await.code(), "unpublishable");
    let forgotten = json!({ "prompt": "x", "run": false, "publish": {} });
    assert_eq!(harness.post("/v1/tasks", forgotten).await.code(), "invalid_body");
}

#[tokio::test]
async fn the_secret_of_the_git_host_must_be_set() {
    let harness = Harness::start().await;
    let body = json!({ "prompt": "x", "agent": "careful", "repo": "https://git.example.com/octo/hello" });
    let answer = harness.post("/v1/tasks", body).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (422, "missing_secret"),
        "{}",
        answer.text()
    );
    assert!(
        answer
            .text()
            .contains("the git host 'forge' needs secrets that are not set: BOT"),
        "{}",
        answer.text()
    );
}
