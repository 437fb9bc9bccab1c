//! The whole path on every backend: the same run, the same verdicts.

use serde_json::{Value, json};

use crate::support::{
    installation::{Installation, is_root},
    program, receipt,
    repository::Repository,
    server::{Server, task},
    story::{Story, text},
};

/// Looks around, writes, and tries to leave.
fn turns() -> Value {
    json!([
        { "say": "I look around.", "call": [{ "tool": "bash", "input": {
            "command": "id -un; cat a; echo new > b; exec 3<>/dev/tcp/192.0.2.7/80 || echo shut; cat < /dev/tcp/127.0.0.1/22 || echo closed",
        } }] },
        { "say": "Done." },
    ])
}

async fn told(backend: &str) -> (Installation, Server, Story) {
    let mut installation = Installation::scripted(turns());
    let mut sandbox = json!({ "backends": ["native", "runc", "crun", "runsc", "docker"] });
    if backend == "docker" {
        let socket = program::docker();
        sandbox["docker_socket"] = json!(socket);
    }
    installation.configure("sandbox", sandbox);
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let server = Server::up(&installation).await;
    let mut task = task(&repo, json!({ "name": "looker", "kind": { "builtin": {} } }));
    task.backend = Some(backend.to_owned());
    let run = server.create(&task).await;
    let story = server.told(run).await;
    (installation, server, story)
}

async fn keeps_its_promises(backend: &str) {
    let (installation, server, story) = told(backend).await;
    let end = story.events.last().expect("an end");
    assert_eq!(end.kind.as_str(), "run.completed", "{backend}: {story}");
    let ready = story.all("sandbox.ready")[0];
    assert_eq!(text(ready, "backend"), backend);
    for check in [
        "network.card",
        "egress.guarded",
        "canary.silent",
        "filter.installed",
        "privileges.none",
        "limits.in_force",
    ] {
        assert!(
            ready.data["measured"].get(check).is_some(),
            "{backend}: {check} was not measured: {story}"
        );
    }
    let outputs = story.outputs();
    assert!(
        outputs.contains("agent") && outputs.contains("old"),
        "{backend}: {outputs}"
    );
    assert!(outputs.contains("closed"), "{backend}: {outputs}");
    let denied = story.all("egress.denied");
    assert!(
        denied.iter().any(|event| text(event, "target") == "192.0.2.7:80"),
        "{backend}: {story}"
    );
    assert_eq!(
        story.all("sandbox.ended")[0].data["clean"],
        json!(true),
        "{backend}: {story}"
    );
    let diff = installation
        .run(&["runs", "diff", &end.run.to_string()])
        .await
        .expect(0);
    assert!(diff.stdout.contains("+new"), "{backend}: {}", diff.stdout);
    receipt::verified(&installation, end.run).await;
    assert!(server.stop().await.success());
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_keeps_its_promises() {
    keeps_its_promises("native").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_keep_them_too() {
    if !is_root() {
        // They say that they need root; see below.
        return;
    }
    for backend in ["runc", "crun", "runsc", "docker"] {
        keeps_its_promises(backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_does_not_work_here_says_what_is_missing() {
    let mut installation = Installation::scripted(turns());
    installation.configure(
        "sandbox",
        json!({ "backends": ["native", "docker"], "docker_socket": "/nonexistent.sock" }),
    );
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let run = ["run", "x", "--repo", repo.source(), "--backend", "docker"];
    let ran = installation.run(&run).await.expect(1);
    assert!(ran.stderr.contains("docker"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("/nonexistent.sock") || ran.stderr.contains("root"),
        "{}",
        ran.stderr
    );
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_cannot_give_is_refused_before_the_run_exists() {
    let installation = Installation::scripted(turns());
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let run = [
        "run",
        "x",
        "--repo",
        repo.source(),
        "--backend",
        "runc",
        "--keep-snapshot",
    ];
    installation
        .run(&run)
        .await
        .expect(2)
        .says("the runc backend cannot take or restore snapshots");
    let digest = format!("sha256:{}", "0".repeat(64));
    let run = ["run", "x", "--repo", repo.source(), "--from-snapshot", &digest];
    installation.run(&run).await.expect(2).says("there is no snapshot");
    let listed = installation.run(&["runs", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_writable_layer_is_there_in_the_next_run() {
    let mut installation = Installation::scripted(json!([
        { "say": "I write.", "call": [{ "tool": "bash", "input": { "command": "echo remembered > ~/note; rm a; echo c > c" } }] },
        { "say": "Done." },
    ]));
    let repo = Repository::with(&installation, &[("a", "old\n")]);
    let first = ["run", "x", "--repo", repo.source(), "--keep-snapshot", "--json"];
    let ran = installation.run(&first).await.expect(0);
    let run = ran.json()["id"].as_str().expect("an id").to_owned();
    let events = installation.run(&["runs", "events", &run, "--json"]).await.expect(0);
    let events = events.json();
    let kept = events
        .as_array()
        .and_then(|all| all.iter().find(|event| event["type"] == "sandbox.snapshot"))
        .unwrap_or_else(|| panic!("no snapshot: {events}"));
    let digest = kept["data"]["digest"].as_str().expect("a digest").to_owned();
    installation.script(json!([
        { "say": "I look.", "call": [{ "tool": "bash", "input": { "command": "cat ~/note; ls" } }] },
        { "say": "Done." },
    ]));
    let second = ["run", "x", "--repo", repo.source(), "--from-snapshot", &digest];
    let ran = installation.run(&second).await.expect(0);
    assert!(ran.stderr.contains("remembered"), "{}", ran.stderr);
    assert!(ran.stderr.contains("│ c"), "{}", ran.stderr);
    assert!(
        !ran.stderr.contains("│ a\n"),
        "the deleted file stays deleted: {}",
        ran.stderr
    );
}
