//! Diagnostics hold no secret, however much of them an operator asks for.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use crate::support::{
    anthropic, installation::Installation, repository::Repository, server::Server, story::Story, web::Web,
};

const KEY: &str = "sk-ant-e2e-a-key-for-the-log";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loudest_log_holds_no_secret() {
    let upstream = Web::plain(|request, before| match before {
        0 => anthropic::calls(
            request,
            "toolu_1",
            "bash",
            json!({ "command": "env; curl -s https://telemetry.example.net" }),
        ),
        1 => anthropic::fails(529, "overloaded_error"),
        _ => anthropic::says(request, "Done."),
    })
    .await;
    let mut installation = Installation::bare();
    installation.configure("provider", json!(format!("anthropic:http://{}", upstream.address)));
    installation.set("ANTHROPIC_API_KEY", KEY);
    installation.set("STOCKADE_LOG", "trace");
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let server = Server::up(&installation).await;
    let run = server.run(&repo, json!("builtin")).await;
    let mut story: Story = server.story(run);
    story.to("run.completed").await;
    let approvals = installation.run(&["approvals", "list"]).await.expect(0);
    assert!(upstream.seen().iter().all(|request| request.header("x-api-key") == KEY));
    let token = server.token.clone();
    let pem = fs::read_to_string(installation.state().join("keys/receipt.pem")).unwrap();
    let signing = pem.lines().nth(1).unwrap();
    let log = server.log() + &approvals.stderr;
    // It is the loudest log, and it is about this run.
    assert!(log.contains("TRACE") && log.lines().count() > 50, "{log}");
    for (name, secret) in [
        ("the model key", KEY),
        ("the API token", token.as_str()),
        ("the receipt key", signing),
    ] {
        assert!(!log.contains(secret), "{name} is in the log");
        assert!(!story.to_string().contains(secret), "{name} is in the events");
    }
    assert!(server.stop().await.success());
    // Nothing on disk holds the model key; the token and the key are where they belong.
    assert_eq!(installation.files_with(KEY), Vec::<String>::new());
    assert_eq!(installation.files_with(&token), ["token"]);
    assert_eq!(installation.files_with(signing), ["keys/receipt.pem"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_reads_the_state() {
    let installation = Installation::scripted(json!([{ "say": "Done." }]));
    let server = Server::up(&installation).await;
    let mode = |name: &str| {
        let meta = fs::metadata(installation.state().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    for file in [
        "token",
        "keys/receipt.pem",
        "keys/secrets.key",
        "stockade.db",
        "server.json",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert!(server.stop().await.success());
    // A key that others could have read signs nothing any more.
    let key = installation.state().join("keys/receipt.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    installation.run(&["up"]).await.expect(4).says("receipt.pem");
}
