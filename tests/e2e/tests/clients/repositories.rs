//! git over https, without and with a look inside.

use serde_json::json;
use stockade_origins::{GitServer, Mirror, TestAuthority};

use super::bench::{Bench, Plan, Way};
use crate::support::repository::Repository;

/// Clones, fetches and lists, where this rule lets git out.
async fn git(rule: serde_json::Value, ways: &[Way]) {
    let (dir, authority) = (tempfile::tempdir().unwrap(), TestAuthority::new());
    let repo = Repository::empty(&dir.path().join("work"));
    repo.write("file", "REACHED by git over https\n");
    repo.commit("first");
    repo.git(&["clone", "--quiet", "--bare", ".", "../tiny.git"]);
    let server = GitServer::start_tls(&authority, &["git.example.com"], dir.path(), None)
        .await
        .unwrap();
    let port = server.port();
    let commands = format!(
        "git clone --quiet https://git.example.com:{port}/tiny.git cloned; cat cloned/file
git -C cloned fetch --quiet; git -c protocol.version=0 ls-remote https://git.example.com:{port}/tiny.git main"
    );
    let mut rules = json!({ "verdict": "allow", "hosts": ["git.example.com"], "ports": [port] });
    rules.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    let mirror = Mirror::start(&authority, &["tools.example.com"]).await.unwrap();
    let bench = Bench::around(
        Plan {
            commands: &commands,
            names: &["git.example.com"],
            rules: &[rules],
            ..Plan::default()
        },
        (authority, mirror),
    )
    .await;
    let outputs = bench
        .proves_elsewhere(ways, "REACHED by git over https", "Could not resolve host")
        .await;
    let head = repo.git(&["rev-parse", "HEAD"]);
    for output in outputs {
        assert!(output.contains(&format!("{head}\trefs/heads/main")), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_that_nobody_looks_into() {
    git(json!({ "protocols": ["tls"] }), &[Way::Through]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_whose_requests_are_read() {
    git(
        json!({ "protocols": ["https"], "methods": ["GET", "POST"], "paths": ["/tiny.git"] }),
        &[Way::Inspected],
    )
    .await;
}
