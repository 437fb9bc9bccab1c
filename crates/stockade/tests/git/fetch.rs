//! Reading: clone and fetch in every version of the protocol, and refusals.

use stockade_domain::RefRules;

use crate::world::{self, PASSWORD, Wish, World, fails, ok};

#[tokio::test]
async fn clones_and_fetches_in_every_version() {
    let world = World::new().await;
    for (version, line) in [("0", None), ("1", Some("version=1")), ("2", Some("version=2"))] {
        let setting = format!("protocol.version={version}");
        let name = format!("clone-{version}");
        let work = world.clone_as(&name, &["-c", &setting]).await;
        assert_eq!(ok(&work, &["rev-list", "--count", "HEAD"]).await, "2");
        assert_eq!(std::fs::read_to_string(work.join("README")).unwrap(), "hello\n");
        let seen = world.server.seen();
        let asked = seen
            .last()
            .unwrap()
            .headers
            .get("git-protocol")
            .and_then(|value| value.to_str().ok());
        assert_eq!(asked, line, "the version passes");
    }
    // Nothing of the credential is where the client could see it.
    let config = std::fs::read_to_string(world.path("client/clone-2/.git/config")).unwrap();
    assert!(!config.contains(PASSWORD));
    assert!(world.gate.asked.lock().unwrap().is_empty(), "nothing else was asked");
    // Each was asked about once, with what it was about.
    let fetched = world.gate.fetched.lock().unwrap().clone();
    assert_eq!(fetched.len(), 3, "{fetched:?}");
    let tip = world.on_server("main").await.unwrap();
    for fetch in fetched {
        let has = |key: &str, value: &str| fetch.args[key].as_array().unwrap().iter().any(|one| one == value);
        assert!(
            has("refs", "refs/heads/main") && has("refs", "refs/tags/v1"),
            "{fetch:?}"
        );
        assert!(has("objects", &tip), "{fetch:?}");
    }
}

#[tokio::test]
async fn new_commits_of_others_are_fetched() {
    let (world, work) = World::cloned(Wish::default()).await;
    let other = world.path("seed");
    let tip = world::commit(&other, "later", "x", "later").await;
    ok(
        &other,
        &[
            "push",
            "--quiet",
            world.path("served/octo/hello.git").to_str().unwrap(),
            "main",
        ],
    )
    .await;
    ok(&work, &["fetch", "--quiet", "origin"]).await;
    assert_eq!(ok(&work, &["rev-parse", "origin/main"]).await, tip);
    // What one fetch needs several requests for is one fetch.
    for version in ["0", "2"] {
        let before = (world.gate.fetched.lock().unwrap().len(), world.server.seen().len());
        let tip = world::commit(&other, "later", version, "much later").await;
        let bare = world.path("served/octo/hello.git");
        ok(&other, &["push", "--quiet", bare.to_str().unwrap(), "main"]).await;
        // The client has so much of its own that it tells in rounds.
        for n in 0..40 {
            world::commit(&work, "own", n.to_string(), "own").await;
        }
        let setting = format!("protocol.version={version}");
        ok(&work, &["-c", &setting, "fetch", "--quiet", "origin"]).await;
        let fetched = world.gate.fetched.lock().unwrap().clone();
        assert_eq!(fetched.len(), before.0 + 1, "{fetched:?}");
        assert_eq!(fetched.last().unwrap().args["objects"], serde_json::json!([tip]));
        let rounds = world.server.seen().into_iter().skip(before.1);
        let rounds = rounds.filter(|seen| seen.body.windows(5).any(|five| five == b"want "));
        assert!(rounds.count() > 1, "the control");
    }
}

#[tokio::test]
async fn shallow_and_partial_clones_work_and_deepen() {
    let world = World::new().await;
    let work = world.clone_as("shallow", &["--depth", "1"]).await;
    assert_eq!(ok(&work, &["rev-list", "--count", "HEAD"]).await, "1");
    ok(&work, &["fetch", "--quiet", "--unshallow"]).await;
    assert_eq!(ok(&work, &["rev-list", "--count", "HEAD"]).await, "2");
    let bare = world.path("served/octo/hello.git");
    ok(&bare, &["config", "uploadpack.allowFilter", "true"]).await;
    let partial = world.clone_as("partial", &["--filter=blob:none"]).await;
    assert!(partial.join("README").is_file(), "blobs come when they are needed");
}

/// A client that wants many things compresses its request.
#[tokio::test]
async fn a_compressed_request_is_read_and_goes_on_plain() {
    let world = World::new().await;
    let bare = world.path("served/octo/hello.git");
    let tree = ok(&bare, &["rev-parse", "main^{tree}"]).await;
    for n in 0..60 {
        let id = ok(&bare, &["commit-tree", &tree, "-p", "main", "-m", &n.to_string()]).await;
        ok(&bare, &["update-ref", &format!("refs/heads/many/{n}"), &id]).await;
    }
    for version in ["0", "2"] {
        let work = world
            .clone_as(
                &format!("many-{version}"),
                &["-c", &format!("protocol.version={version}")],
            )
            .await;
        assert_eq!(ok(&work, &["branch", "-r"]).await.lines().count(), 63);
    }
    let seen = world.server.seen();
    let large = seen
        .iter()
        .filter(|seen| seen.uri.path().ends_with("/git-upload-pack") && seen.body.len() > 1024);
    let large: Vec<_> = large.collect();
    assert!(!large.is_empty(), "git compresses requests of more than a kilobyte");
    for seen in large {
        assert!(!seen.headers.contains_key("content-encoding"));
        assert!(seen.body.windows(5).any(|five| five == b"want "), "plain at the server");
    }
}

#[tokio::test]
async fn an_environment_without_fetch_says_so_before_the_server_hears_of_it() {
    let rules = RefRules {
        fetch: false,
        ..RefRules::default()
    };
    let world = World::with(Wish {
        rules,
        ..Wish::default()
    })
    .await;
    let words = fails(&world.path("client"), &["clone", &world.url, "x"]).await;
    assert!(
        words.contains("remote: stockade: this environment does not allow fetching"),
        "{words}"
    );
    assert!(words.contains("403"), "{words}");
    assert!(world.server.seen().is_empty());
    let (action, _, rule) = world.gate.last();
    assert_eq!((action.operation.as_str(), rule.as_str()), ("fetch", "env.git.fetch"));
    assert_eq!(action.target, "https://git.example/octo/hello.git");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told() {
    let world = World::new().await;
    world.upstream.fail_from.store(0, std::sync::atomic::Ordering::SeqCst);
    let words = fails(&world.path("client"), &["clone", &world.url, "x"]).await;
    assert!(
        words.contains("could not be reached") && words.contains("502"),
        "{words}"
    );
}
