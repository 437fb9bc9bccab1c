//! Git on connections that the Guard reads: what passes as git, and what does not pass.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, StatusCode};
use serde_json::json;
use stockade_domain::{Event, EventType, Failure};
use stockade_policy::git::{History, PushFacts, RefFacts};
use stockade_ports::{GitPlace, Inspected, PushInspector, PushToInspect, Quarantine};
use tempfile::TempDir;

use super::{Body, World, origin::Setup, pki::Pki, plan, read, to, to_host, trusting, whole};

const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Finds nothing wrong with any push.
struct Content(TempDir);

#[async_trait]
impl PushInspector for Content {
    async fn inspect(&self, push: PushToInspect) -> Result<Inspected, Failure> {
        let of = |update| RefFacts {
            update,
            history: History::New,
        };
        let facts = PushFacts {
            refs: push.updates.into_iter().map(of).collect(),
            commits: 1,
            log: Vec::new(),
            files: Vec::new(),
            pack_objects: 1,
            stray_objects: 0,
        };
        let quarantine = Quarantine::new(self.0.path().join("push"));
        Ok(Inspected { facts, quarantine })
    }

    async fn delivered(&self, _push: Inspected) {}
}

/// A Guard for which `a.example.com` is a git host and nothing more.
async fn world() -> (World, Pki) {
    let pki = Pki::new();
    let mut plan = plan(&pki);
    plan.inspector = None;
    plan.environment.git.hosts = vec!["a.example.com".to_owned()];
    let setup = Setup::tls(pki.server(&["a.example.com", "b.example.com"]));
    (World::of(plan, setup).await, pki)
}

fn serve_git(world: &World) -> TempDir {
    let spool = tempfile::tempdir().unwrap();
    world.rig.session.as_ref().unwrap().serve_git(GitPlace {
        inspector: Arc::new(Content(tempfile::tempdir().unwrap())),
        spool_dir: spool.path().to_owned(),
    });
    spool
}

fn offer(service: &str) -> String {
    format!("/o/r.git/info/refs?service={service}")
}

/// A push of one commit to a reference.
fn push(name: &str) -> Request<Body> {
    let command = format!("{} {NEW} {name}\0report-status side-band-64k\n", "0".repeat(40));
    let body = format!("{:04x}{command}0000PACK-that-nobody-reads", command.len() + 4);
    let request = Request::builder()
        .method("POST")
        .uri("https://a.example.com/o/r.git/git-receive-pack")
        .header("content-type", "application/x-git-receive-pack-request");
    request.body(whole(body)).unwrap()
}

#[tokio::test]
async fn a_git_host_is_read_for_that_alone_and_others_are_not() {
    let (world, pki) = world().await;
    let (status, _) = read(world.http1().await.send_request(to_host("/plain"))).await;
    assert_eq!(status, StatusCode::OK, "a client that believes the run's authority");
    assert_eq!(world.origin.seen(), ["GET /plain"]);
    // The other host keeps its own certificate.
    world
        .shake_hands("b.example.com", trusting(&pki.root, &[], rustls::ALL_VERSIONS))
        .await
        .unwrap();
    world
        .shake_hands("a.example.com", trusting(&pki.root, &[], rustls::ALL_VERSIONS))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn before_anybody_looks_into_pushes_nothing_of_git_passes() {
    let (world, _) = world().await;
    let mut sender = world.http2().await;
    for path in [offer("git-upload-pack"), offer("git-receive-pack")] {
        let (status, words) = read(sender.send_request(to(&path))).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(words.starts_with("stockade: git does not pass here"), "{words}");
    }
    let (status, _) = read(sender.send_request(push(&own(&world, "/x")))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(world.origin.seen().is_empty(), "{:?}", world.origin.seen());
    let _spool = serve_git(&world);
    let (_, _) = read(sender.send_request(to(&offer("git-upload-pack")))).await;
    assert_eq!(world.origin.seen(), ["GET /o/r.git/info/refs"], "the control");
}

#[tokio::test]
async fn what_only_resembles_git_is_refused_in_both_versions_of_http() {
    let (world, _) = world().await;
    let _spool = serve_git(&world);
    let odd = [
        "/o/r.git/info/refs",
        "/o/r.git/HEAD",
        "/o/r.git/info/refs?service=git-receive-pack&x=1",
        "/o//r.git/info/refs?service=git-receive-pack",
        "/o/r.git/git-receive-pac%6b",
        "/o/r.git/objects/info/packs",
        "/o/r.git/info/lfs/locks",
    ];
    let (mut http1, mut http2) = (world.http1().await, world.http2().await);
    for path in odd {
        for (status, words) in [
            read(http1.send_request(to_host(path))).await,
            read(http2.send_request(to(path))).await,
        ] {
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {words}");
            assert!(words.contains("stockade: "), "{path}: {words}");
        }
    }
    assert!(world.origin.seen().is_empty(), "{:?}", world.origin.seen());
    let denied = world.rig.denied().await;
    assert!(denied.iter().any(|told| told.ends_with(" stockade.git")), "{denied:?}");
    for path in ["/o/r.git", "/o/r/blob/main/info", "/other"] {
        read(http1.send_request(to_host(path))).await;
        read(http2.send_request(to(path))).await;
    }
    assert_eq!(world.origin.seen().len(), 6, "the control");
}

fn own(world: &World, rest: &str) -> String {
    format!("refs/heads/stockade/{}{rest}", world.rig.run)
}

#[tokio::test]
async fn a_push_goes_on_as_far_as_the_rules_do_and_is_written_down() {
    let (world, _) = world().await;
    let _spool = serve_git(&world);
    let mut sender = world.http2().await;
    let (status, answer) = read(sender.send_request(push("refs/heads/main"))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        answer.contains("ng refs/heads/main refs/heads/main is not this run's branch"),
        "{answer}"
    );
    assert!(world.origin.seen().is_empty(), "{:?}", world.origin.seen());

    let name = own(&world, "/fix");
    let (status, answer) = read(sender.send_request(push(&name))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!answer.contains("ng "), "{answer}");
    assert_eq!(world.origin.seen(), ["POST /o/r.git/git-receive-pack"]);

    let events = world.rig.events().await;
    let of = |kind: EventType| {
        let fits = |event: &&Event| event.kind == kind && event.data["operation"] == "push";
        events
            .iter()
            .find(fits)
            .unwrap_or_else(|| panic!("no {kind:?}: {events:?}"))
            .data
            .clone()
    };
    assert_eq!(of(EventType::ActionDenied)["rule"], "env.git.elsewhere");
    let target = of(EventType::ActionAdmitted)["target"].clone();
    assert_eq!(target, json!(format!("https://a.example.com/o/r.git {name}")));
}
