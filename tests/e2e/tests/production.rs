//! Production refuses to start on what is unsafe, names every reason at once, and starts where nothing is.

use serde_json::{Value, json};

use crate::support::{
    installation::{Installation, is_root},
    server::Server,
};

const IMAGE: &str = "127.0.0.1:5000/tools@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn environment(image: &str) -> Value {
    json!([{ "name": "default", "network": "none", "image": image }])
}

/// An installation that production accepts: on hosts where limits can be enforced.
fn safe() -> Installation {
    let mut installation = Installation::scripted(json!([{ "say": "Done." }]));
    installation.configure("production", json!(true));
    installation.configure("sandbox", json!({ "backends": ["native"] }));
    installation.configure("environments", environment(IMAGE));
    installation
}

async fn refusal(installation: &Installation) -> String {
    let ran = installation.run(&["up", "--listen", "127.0.0.1:0"]).await.expect(4);
    assert!(ran.stderr.contains("production refuses to start"), "{}", ran.stderr);
    ran.stderr.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_safe_configuration_starts() {
    if !is_root() {
        // Without a delegated cgroup an ordinary user has no limits to enforce; see below.
        return;
    }
    let installation = safe();
    let server = Server::up(&installation).await;
    assert!(server.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_unsafe_setting_is_refused_with_its_reason() {
    let cases: [(&str, Value, &str); 4] = [
        (
            "environments",
            environment("host"),
            "'default' runs on this host's own programs",
        ),
        ("environments", environment("debian:12"), "'debian:12' without a digest"),
        (
            "environments",
            json!([]),
            "the default environment 'default' is not configured",
        ),
        (
            "sandbox",
            json!({ "backends": ["native", "unisolated"] }),
            "the backend 'unisolated' does not isolate anything",
        ),
    ];
    for (key, value, words) in cases {
        let mut installation = safe();
        installation.configure(key, value);
        let said = refusal(&installation).await;
        assert!(said.contains(words), "{said}");
        // The same settings are taken in development.
        installation.configure("production", json!(false));
        let server = Server::up(&installation).await;
        assert!(server.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_reasons_are_told_at_once_and_a_run_is_refused_like_a_server() {
    let mut installation = safe();
    installation.configure("environments", environment("host"));
    installation.configure("sandbox", json!({ "backends": ["unisolated", "native"] }));
    let said = refusal(&installation).await;
    for words in ["host's own programs", "does not isolate"] {
        assert!(said.contains(words), "{said}");
    }
    let ran = installation.run(&["run", "x"]).await.expect(4);
    assert!(ran.stderr.contains("production refuses to start"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_user_without_cgroups_is_refused() {
    let mut installation = safe();
    if is_root() {
        installation.belongs_to(54_322);
    }
    let said = refusal(&installation).await;
    assert!(
        said.contains("the backend 'native' cannot limit memory, cpu here"),
        "{said}"
    );
}
