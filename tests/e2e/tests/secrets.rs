//! Secrets of a team, as an operator sets them: what goes in comes out nowhere.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    installation::Installation,
    program::{self, Ran},
    raw,
    server::Server,
};

const PIPED: &str = "canary-secret-piped-6f0e";
const FROM_FILE: &str = "canary-secret-file-1b77";

async fn set(installation: &Installation, name: &str, value: &[u8]) -> Ran {
    program::run_with(installation.command(&["secret", "set", name]), value).await
}

async fn listed(installation: &Installation) -> Vec<(String, u64)> {
    let list = installation.run(&["secret", "list", "--json"]).await.expect(0).json();
    let row = |s: &Value| (s["name"].as_str().unwrap().to_owned(), s["version"].as_u64().unwrap());
    list.as_array().unwrap().iter().map(row).collect()
}

/// Fails when a canary, as it is or encoded, is in a text.
#[track_caller]
fn assert_silent(place: &str, text: &str) {
    for secret in [PIPED, FROM_FILE] {
        for form in [secret.to_owned(), STANDARD.encode(secret)] {
            assert!(!text.contains(&form), "{place} holds a secret:\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_in_and_comes_out_nowhere() {
    let mut installation = Installation::bare();
    installation.set("STOCKADE_LOG", "trace");
    let server = Server::up(&installation).await;
    let piped = set(&installation, "GITHUB_TOKEN", format!("{PIPED}\n").as_bytes())
        .await
        .expect(0);
    assert!(
        piped.stderr.contains("line break at the end was left out"),
        "{}",
        piped.stderr
    );
    assert!(
        piped.stderr.contains("GITHUB_TOKEN is set, version 1"),
        "{}",
        piped.stderr
    );
    let file = installation.path("value");
    fs::write(&file, FROM_FILE).unwrap();
    let path = file.to_str().unwrap();
    let named = installation
        .run(&["secret", "set", "npm.read", "--file", path])
        .await
        .expect(0);
    assert!(!named.stderr.contains("line break"), "{}", named.stderr);
    fs::remove_file(&file).unwrap();
    assert_eq!(
        listed(&installation).await,
        [("GITHUB_TOKEN".to_owned(), 1), ("npm.read".to_owned(), 1)]
    );
    let again = set(&installation, "GITHUB_TOKEN", PIPED.as_bytes()).await.expect(0);
    assert!(again.stderr.contains("version 2"), "{}", again.stderr);

    // The API tells names only, and says nothing it was given back.
    let list = raw::send(&server, "GET", "/v1/secrets", b"").await;
    assert!(list.status == 200 && list.body.contains("npm.read"), "{list:?}");
    let wrong = raw::send(&server, "PUT", "/v1/secrets/x", format!("\"{PIPED}\"").as_bytes()).await;
    wrong.problem(415, "unsupported_media_type");
    let unread = raw::send(&server, "GET", "/v1/secrets/GITHUB_TOKEN", b"").await;
    unread.problem(405, "method_not_allowed");
    for (place, text) in [
        ("setting", piped.stdout + &piped.stderr + &again.stderr + &named.stderr),
        ("the list", list.body + &list.head),
        ("a refusal", wrong.body + &unread.body),
        ("the log", server.log()),
    ] {
        assert_silent(place, &text);
    }
    assert!(
        server.log().contains("a secret was set"),
        "what was done is told: {}",
        server.log()
    );
    assert!(server.stop().await.success());
    // Nothing on disk holds a value. The control finds a name.
    for secret in [PIPED, FROM_FILE] {
        assert_eq!(installation.files_with(secret), Vec::<String>::new());
    }
    let names = installation.files_with("npm.read");
    assert!(names.iter().any(|file| file.starts_with("stockade.db")), "{names:?}");

    // Without a server the command serves itself.
    installation.run(&["secret", "rm", "npm.read"]).await.expect(0);
    installation
        .run(&["secret", "rm", "npm.read"])
        .await
        .expect(2)
        .says("no secret 'npm.read'");
    assert_eq!(listed(&installation).await, [("GITHUB_TOKEN".to_owned(), 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_secret_is_refused_without_repeating_it() {
    let installation = Installation::bare();
    for name in ["1x", "a/b", "", "ä"] {
        set(&installation, name, PIPED.as_bytes())
            .await
            .expect(2)
            .says("cannot name a secret");
    }
    set(&installation, "x", b"").await.expect(2).says("holds no value");
    set(&installation, "x", b"\n").await.expect(2).says("holds no value");
    let large = PIPED.repeat(3000);
    let refused = set(&installation, "x", large.as_bytes())
        .await
        .expect(2)
        .says("more than 65536 bytes");
    assert_silent("a refusal", &refused.stderr);
    installation
        .run(&["secret", "set", "x", "--file", "no/such"])
        .await
        .expect(2)
        .says("no/such");
    // A value on the command line would be seen by every user of the host.
    installation
        .run(&["secret", "set", "x", "value"])
        .await
        .expect(2)
        .says("unexpected argument");
    assert_eq!(listed(&installation).await, []);
    // The control: the largest there may be, with the line break that does not count.
    let largest = "v".repeat(64 << 10) + "\n";
    set(&installation, "x", largest.as_bytes()).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_readable_key_is_told_before_anything_starts() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut installation = Installation::bare();
    set(&installation, "x", PIPED.as_bytes()).await.expect(0);
    let key = installation.state().join("keys/secrets.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    installation
        .run(&["secret", "list"])
        .await
        .expect(4)
        .says("can be read by others");
    fs::remove_file(&key).unwrap();
    installation
        .run(&["secret", "list"])
        .await
        .expect(4)
        .says("restore it from a backup");
    assert!(!key.exists(), "no new key takes its place");
    // From a variable it is the same key.
    installation.configure("secrets", json!({ "key_variable": "E2E_SECRETS_KEY" }));
    installation
        .run(&["secret", "list"])
        .await
        .expect(2)
        .says("E2E_SECRETS_KEY");
    installation.set("E2E_SECRETS_KEY", text.trim());
    assert_eq!(listed(&installation).await, [("x".to_owned(), 1)]);
    installation.configure("secrets", json!({ "key_variable": "E2E_SECRETS_KEY", "key_file": "k" }));
    installation
        .run(&["secret", "list"])
        .await
        .expect(2)
        .says("both key_file and key_variable");
}

/// The names of an environment's credentials are checked where they are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_could_be_misread_is_told_with_its_place() {
    let mut installation = Installation::bare();
    let environment = |host: &str| {
        json!([{ "name": "default", "network": "custom", "domains": ["api.example.com"],
                 "credentials": [{ "secret": "token", "kind": "bearer", "hosts": [host] }] }])
    };
    installation.configure("environments", environment("*.com"));
    let refused = installation.run(&["config", "check"]).await.expect(2);
    refused.says("credential 'token': hosts: '*.com' is too wide");
    installation.configure("environments", environment("api.example.com"));
    let shown: Command = installation.command(&["env", "show", "default"]);
    let shown = program::run(shown).await.expect(0).json();
    assert_eq!(shown["credentials"][0]["secret"], "token");
}
