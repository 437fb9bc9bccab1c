//! Secrets of the host are planted, and a sandbox looks for them with everything it has.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::support::{
    anthropic, installation::Installation, repository::Repository, server::Server, story::Story, web::Web,
};

/// Looks for the patterns (base64, one a line, in the file `patterns`) in everything the
/// agent can read, and prints those it finds. The patterns are nowhere in clear text
/// inside, so the search cannot find itself.
const SEARCH: &str = r#"
patterns() { while read -r line; do printf '%s' "$line" | base64 -d; echo; done < /workspace/patterns; }
look() {
  env
  cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo /proc/[0-9]*/mounts /proc/[0-9]*/maps | tr '\0' '\n'
  cat /proc/[0-9]*/cgroup /proc/[0-9]*/status /proc/mounts /proc/swaps /proc/cmdline
  ls -la /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe
  hostname; mount; git -C /workspace config --list --show-origin; git -C /workspace log --all --format=fuller
  find / -path /proc -prune -o -path /sys -prune -o -path /usr -prune -o -print
  find / \( -path /proc -o -path /sys -o -path /usr -o -path /dev -o -path /workspace/patterns -o -path /tmp/everything \) -prune -o -type f -readable -size -8M -print0 | xargs -0 cat
  find / -path /proc -prune -o -path /usr -prune -o -type l -printf '%l\n'
}
look 2>/dev/null > /tmp/everything
grep -a -o -F -f <(patterns) /tmp/everything | sort -u
echo "searched $(wc -c < /tmp/everything) bytes"
"#;

/// Every secret and place of the host that must not be seen inside, with its name.
fn planted(installation: &Installation, server: &Server) -> Vec<(&'static str, String)> {
    let pem = fs::read_to_string(installation.state().join("keys/receipt.pem")).unwrap();
    let key = pem.lines().nth(1).expect("a key in PEM").to_owned();
    vec![
        ("the model key", "canary-model-key-4f1d".to_owned()),
        ("a variable of the server", "canary-variable-9c2e".to_owned()),
        ("a file in the home directory", "canary-home-77aa".to_owned()),
        ("the repository's credentials", "canary-remote-5b3f".to_owned()),
        ("the API token", server.token.clone()),
        ("the receipt key", key),
        ("the state directory", installation.state().display().to_string()),
        ("the source repository", installation.path("repo").display().to_string()),
        (
            "the installation",
            installation
                .path("")
                .display()
                .to_string()
                .trim_end_matches('/')
                .to_owned(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_the_host_is_visible_inside() {
    let upstream = Web::plain(|request, before| match before {
        0 => anthropic::calls(request, "toolu_1", "bash", json!({ "command": "bash search.sh" })),
        _ => anthropic::says(request, "Done."),
    })
    .await;
    let mut installation = Installation::bare();
    installation.configure("provider", json!(format!("anthropic:http://{}", upstream.address)));
    installation.set("ANTHROPIC_API_KEY", "canary-model-key-4f1d");
    installation.set("E2E_VARIABLE", "canary-variable-9c2e");
    for name in [
        ".netrc",
        ".git-credentials",
        ".bashrc",
        ".ssh/id_ed25519",
        ".aws/credentials",
        ".config/gh/hosts.yml",
    ] {
        let path = installation.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "secret: canary-home-77aa\n").unwrap();
    }
    let server = Server::up(&installation).await;
    let secrets = planted(&installation, &server);
    let encoded = secrets
        .iter()
        .map(|(_, secret)| secret.as_str())
        .chain(["canary-in-the-repo"])
        .map(|s| STANDARD.encode(s) + "\n");
    let repo = Repository::with(
        &installation,
        &[
            ("search.sh", SEARCH),
            ("patterns", &encoded.collect::<String>()),
            ("known.txt", "This one is meant to be found: canary-in-the-repo\n"),
        ],
    );
    repo.git(&[
        "remote",
        "add",
        "origin",
        "https://user:canary-remote-5b3f@git.example.com/x.git",
    ]);

    let run = server.run(&repo, json!("builtin")).await;
    let mut story = server.story(run);
    story.to("run.completed").await;
    let found = story.outputs();
    assert!(found.contains("searched "), "{story}");
    // The same search finds what is there, so what it does not find is not there.
    assert!(found.contains("canary-in-the-repo"), "{found}");
    for (name, secret) in &secrets {
        assert!(!found.contains(secret.as_str()), "{name} is visible inside:\n{found}");
        assert_not_told(&story, name, secret);
    }

    // The key did its work, outside.
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|request| request.header("x-api-key") == "canary-model-key-4f1d"),
        "{seen:?}"
    );
}

/// Events hold no secret either. They do name the repository, which the operator named.
fn assert_not_told(story: &Story, name: &str, secret: &str) {
    if secret.starts_with('/') {
        return;
    }
    for event in &story.events {
        assert!(
            !event.data.to_string().contains(secret),
            "{name} is in an event: {event:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_for_secrets_finds_them_outside() {
    let mut installation = Installation::bare();
    installation.set("E2E_VARIABLE", "canary-variable-9c2e");
    let dir = installation.path("outside");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("patterns"), STANDARD.encode("canary-variable-9c2e") + "\n").unwrap();
    // Only the environment and this process: a whole host is too much to read.
    let search = SEARCH
        .replace("/workspace", dir.to_str().unwrap())
        .replace("/tmp/everything", dir.join("everything").to_str().unwrap())
        .replace("find / ", &format!("find {} ", dir.display()))
        .replace("/proc/[0-9]*/", "/proc/self/");
    let mut command = tokio::process::Command::new("bash");
    installation.dress(command.arg("-c").arg(search));
    let ran = crate::support::program::run(command).await.expect(0);
    assert!(ran.stdout.contains("canary-variable-9c2e"), "{ran:?}");
}
