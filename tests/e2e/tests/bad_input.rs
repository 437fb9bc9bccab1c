//! Wrong input on the command line: the right exit code, words that help, and nothing half-made left behind.

use std::fs;

use serde_json::json;

use crate::support::{
    installation::Installation,
    program::{self, Ran},
    repository::Repository,
    server::Server,
};

fn done() -> serde_json::Value {
    json!([{ "say": "Done." }])
}

/// An installation whose runs would work, and a repository.
fn healthy() -> (Installation, Repository) {
    let installation = Installation::scripted(done());
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    (installation, repo)
}

/// Fails the test when a command that was refused left a run.
async fn assert_no_run(installation: &Installation) {
    installation.assert_untouched();
    let listed = installation.run(&["runs", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_input_works() {
    let (installation, repo) = healthy();
    let ran = installation
        .run(&["run", "x", "--repo", repo.source(), "--json"])
        .await
        .expect(0);
    assert_eq!(ran.json()["state"], "completed");
    installation.assert_untouched();
    let listed = installation.run(&["runs", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_are_none() {
    let (installation, repo) = healthy();
    let write = |name: &str, bytes: &[u8]| {
        let path = installation.path(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let broken = write("broken.yaml", b"name: x\nkind:\n  builtin: {tools: [bash}\n");
    let unknown = write("unknown.yaml", b"name: x\nkind: {builtin: {}}\nmodle: y\n");
    let latin = write("latin.yaml", b"name: caf\xe9\nkind: {builtin: {}}\n");
    let rule = write(
        "rule.yaml",
        b"name: x\nkind: {builtin: {}}\nrules:\n- {id: env.mine, match: {tool: bash}, verdict: ask}\n",
    );
    let absent = installation.path("absent.yaml").display().to_string();
    let cases = [
        ("nobody", vec!["nobody", "builtin"]),
        (broken.as_str(), vec!["broken.yaml:3:"]),
        (unknown.as_str(), vec!["unknown.yaml:3:1", "modle"]),
        (latin.as_str(), vec!["latin.yaml", "UTF-8", "byte 9"]),
        (rule.as_str(), vec!["env.mine"]),
        (absent.as_str(), vec!["absent.yaml"]),
    ];
    for (agent, words) in cases {
        let mut ran = installation
            .run(&["run", "x", "--repo", repo.source(), "--agent", agent])
            .await
            .expect(2);
        for word in words {
            ran = ran.says(word);
        }
    }
    assert_no_run(&installation).await;
    for agent in [&broken, &unknown, &latin, &rule] {
        installation.run(&["agent", "check", agent]).await.expect(2);
    }
}

#[tokio::test]
async fn an_agent_that_is_not_installed_is_refused_with_the_command_that_installs_it() {
    let (installation, repo) = healthy();
    let run = ["run", "x", "--repo", repo.source(), "--agent", "claude"];
    let ran = installation.run(&run).await.expect(2);
    assert!(ran.stderr.contains("npm install"), "{}", ran.stderr);
    installation.assert_untouched();
    let doctor = installation.run(&["doctor", "--json"]).await;
    let findings = doctor.json();
    let claude = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["what"] == "agent claude")
        .unwrap();
    assert!(claude["fix"].as_str().unwrap().contains("npm install"), "{claude}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_that_are_none() {
    let installation = Installation::bare();
    let config = installation.state().join("stockade.yaml");
    for (text, words) in [
        (&b"listen: 127.0.0.1:0\nagents: [\n"[..], "stockade.yaml:"),
        (b"listen: 127.0.0.1:0\nprovidr: anthropic\n", "stockade.yaml:2:1"),
        (b"environments:\n- {name: x, network: sideways}\n", "stockade.yaml:2:"),
        (b"model: \xff\xfe\n", "UTF-8"),
        (b"agents: [absent.yaml]\n", "absent.yaml"),
        (b"certificate_authorities: [absent.pem]\n", "absent.pem"),
        (b"certificate_authorities: [stockade.yaml]\n", "no certificate"),
    ] {
        fs::write(&config, text).unwrap();
        installation.run(&["config", "check"]).await.expect(2).says(words);
        installation.run(&["up"]).await.expect(2).says(words);
        assert!(!installation.state().join("stockade.db").exists(), "a store was made");
    }
    fs::write(&config, "environments:\n- {name: x, network: full}\n").unwrap();
    installation
        .run(&["config", "check"])
        .await
        .expect(2)
        .says("acknowledge_full_network");
    fs::write(&config, "listen: 0.0.0.0:7070\n").unwrap();
    installation.run(&["up"]).await.expect(4).says("loopback");
    fs::write(&config, "listen: 127.0.0.1:0\n").unwrap();
    installation.run(&["config", "check"]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_that_are_none() {
    let (installation, repo) = healthy();
    fs::write(installation.path("file"), "x").unwrap();
    fs::create_dir(installation.path("directory")).unwrap();
    Repository::empty(&installation.path("empty"));
    let place = |name: &str| installation.path(name).display().to_string();
    for (source, words) in [
        (place("absent"), "absent"),
        (place("file"), "is a file"),
        (place("directory"), "not a git repository"),
        (place("empty"), "no commit"),
        ("https://user:secret@git.example.com/x.git".to_owned(), "credentials"),
        ("ssh://git.example.com/x.git".to_owned(), "ssh"),
    ] {
        let ran = installation
            .run(&["run", "x", "--repo", &source])
            .await
            .expect(2)
            .says(words);
        assert!(ran.stderr.contains("hint:"), "no way out is named:\n{}", ran.stderr);
    }
    installation
        .run(&["run", "x", "--repo", repo.source(), "--ref", "nowhere"])
        .await
        .expect(2)
        .says("nowhere");
    installation
        .run(&["run", "x", "--repo", repo.source(), "--env", "nowhere"])
        .await
        .expect(2)
        .says("nowhere");
    installation
        .run(&["run", "x", "--repo", repo.source(), "--backend", "nowhere"])
        .await
        .expect(2)
        .says("nowhere");
    installation
        .run(&["run", " ", "--repo", repo.source()])
        .await
        .expect(2)
        .says("empty");
    assert_no_run(&installation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_are_none() {
    let installation = Installation::bare();
    let repo = Repository::with(&installation, &[("a", "a\n")]);
    let run = ["run", "x", "--repo", repo.source()];
    installation.run(&run).await.expect(2).says("no model");
    for (provider, words) in [
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("openai:http://127.0.0.1:9", "OPENAI_API_KEY"),
        ("scripted:absent.yaml", "absent.yaml"),
        ("replay:absent", "absent"),
        ("telepathy", "unknown provider"),
    ] {
        installation
            .run(&[&run[..], &["--provider", provider]].concat())
            .await
            .expect(2)
            .says(words);
    }
    let script = installation.path("script.yaml");
    fs::write(&script, "turns:\n  - say: a\n    tool: b\n").unwrap();
    let provider = format!("scripted:{}", script.display());
    installation
        .run(&[&run[..], &["--provider", &provider]].concat())
        .await
        .expect(2)
        .says("script.yaml:3:5");
    assert_no_run(&installation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_and_servers_that_are_none() {
    let (installation, repo) = healthy();
    let nobody = "run_00000000000000000000000000000000";
    for args in [
        vec!["runs", "show", nobody],
        vec!["runs", "diff", nobody],
        vec!["runs", "events", nobody],
        vec!["runs", "cancel", nobody],
        vec!["runs", "apply", nobody, "--yes"],
        vec!["receipt", "show", nobody],
        vec!["send", nobody, "hello"],
        vec!["approvals", "approve", "apr_00000000000000000000000000000000"],
    ] {
        installation.run(&args).await.expect(2).says("00000000");
    }
    installation
        .run(&["runs", "show", "../../etc"])
        .await
        .expect(2)
        .says("not a run id");
    installation.run(&["frobnicate"]).await.expect(2);
    installation
        .run(&["run", "x", "--repo", repo.source(), "--detach"])
        .await
        .expect(5)
        .says("stockade up");
    assert_no_run(&installation).await;

    // A server elsewhere that is not there, and one that does not know the token.
    let elsewhere = |url: &str, token: &str| {
        let mut command = installation.command(&["runs", "list"]);
        command.env("STOCKADE_URL", url).env("STOCKADE_TOKEN", token);
        program::run(command)
    };
    elsewhere("http://127.0.0.1:9", "x").await.expect(5).says("127.0.0.1:9");
    let server = Server::up(&installation).await;
    elsewhere(&server.url, "stk_wrong").await.expect(2).says("token");
    elsewhere(&server.url, &server.token).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_state_is_refused() {
    let (installation, repo) = healthy();
    let server = Server::up(&installation).await;
    let second = ["up", "--listen", "127.0.0.1:0"];
    installation.run(&second).await.expect(5).says("already");
    // Also when it cannot know of the first one: the lock holds.
    let beacon = installation.state().join("server.json");
    let content = fs::read(&beacon).unwrap();
    fs::remove_file(&beacon).unwrap();
    installation.run(&second).await.expect(5);
    fs::write(&beacon, content).unwrap();
    // The first one is none the worse.
    server.client.ready().await.unwrap();
    installation.run(&["run", "x", "--repo", repo.source()]).await.expect(0);
    assert!(server.stop().await.success());
    let third = Server::up(&installation).await;
    assert!(third.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_is_named() {
    let installation = Installation::scripted(done());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    installation
        .run(&["up", "--listen", &address])
        .await
        .expect(5)
        .says(&address);
    installation
        .run(&["up", "--listen", "0.0.0.0:0"])
        .await
        .expect(4)
        .says("loopback");
    installation.run(&["up", "--listen", "localhost"]).await.expect(2);
}

/// Runs a command as an ordinary user of a kernel that allows no new user namespace: inside
/// one that allows no others.
async fn without_namespaces(installation: &Installation, args: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new("unshare");
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
    command.args([
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
        "sh",
        "-c",
        forbid,
    ]);
    installation.dress(command.arg(installation.program()).args(args));
    program::run(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_user_namespaces_is_named() {
    let (installation, repo) = healthy();
    let doctor = without_namespaces(&installation, &["doctor"]).await.expect(5);
    assert!(doctor.stdout.contains("user.max_user_namespaces="), "{doctor:?}");
    let ran = without_namespaces(&installation, &["run", "x", "--repo", repo.source()])
        .await
        .expect(1);
    assert!(ran.stderr.contains("user.max_user_namespaces="), "{ran:?}");
    installation.assert_untouched();
    // The same installation works where they are allowed.
    installation.run(&["doctor"]).await.expect(0);
    installation.run(&["run", "x", "--repo", repo.source()]).await.expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_of_a_container_is_told_from_root_of_the_host() {
    let (installation, repo) = healthy();
    let contained = |args: &[&str]| {
        let mut command = tokio::process::Command::new("unshare");
        command
            .args(["--user", "--map-root-user"])
            .arg(installation.program())
            .args(args);
        installation.dress(&mut command);
        program::run(command)
    };
    let doctor = contained(&["doctor"]).await.expect(5);
    assert!(doctor.stdout.contains("not root of the host"), "{doctor:?}");
    contained(&["run", "x", "--repo", repo.source()])
        .await
        .expect(1)
        .says("not root of the host");
    installation.assert_untouched();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_are_none() {
    let (installation, repo) = healthy();
    let run = installation
        .run(&["run", "x", "--repo", repo.source(), "--json"])
        .await
        .expect(0)
        .json();
    let (good, bad) = (installation.path("good.json"), installation.path("bad.json"));
    let show = [
        "receipt",
        "show",
        run["id"].as_str().unwrap(),
        "--out",
        good.to_str().unwrap(),
    ];
    installation.run(&show).await.expect(0);
    let verify = |file: &std::path::Path| {
        let file = file.to_str().unwrap().to_owned();
        let installation = &installation;
        async move { installation.run(&["receipt", "verify", &file]).await }
    };
    verify(&good).await.expect(0);
    let bytes = fs::read(&good).unwrap();
    // Some places all over the file; the unit tests change every byte.
    for place in (0..bytes.len()).step_by(bytes.len() / 7) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        fs::write(&bad, &changed).unwrap();
        verify(&bad).await.expect(1);
    }
    fs::write(&bad, [&bytes[..], b"\n"].concat()).unwrap();
    verify(&bad).await.expect(1);
    verify(&installation.path("absent.json")).await.expect(2);
    // Another installation's key does not vouch for it.
    let other = Installation::scripted(done());
    let server = Server::up(&other).await;
    let key = other.state().join("keys/receipt.pub.pem");
    let foreign = [
        "receipt",
        "verify",
        good.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    installation.run(&foreign).await.expect(1).says("key");
    drop(server);
}
