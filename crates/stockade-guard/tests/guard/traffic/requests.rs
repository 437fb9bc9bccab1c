//! Limits where requests are judged one by one: each counts towards the rule that lets it out.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use stockade_domain::{EgressRule, EventType, RuleVerdict};
use tokio::time::timeout;

use super::some;
use crate::{
    inspected::{World, a_while, origin::Setup, pki::Pki, plan, read, to, to_host, whole},
    rig::SOON,
};

fn rule(name: &str, paths: &[&str]) -> EgressRule {
    EgressRule {
        name: Some(name.to_owned()),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..EgressRule::hosts(RuleVerdict::Allow, &["a.example.com"])
    }
}

async fn ruled(rules: Vec<EgressRule>, change: impl FnOnce(&mut crate::rig::Plan)) -> World {
    let pki = Pki::new();
    let setup = Setup::tls(pki.server(&["a.example.com", "b.example.com"]));
    let mut plan = plan(&pki);
    plan.inspector = None;
    plan.environment.domains = Vec::new();
    plan.environment.egress = rules;
    change(&mut plan);
    World::of(plan, setup).await
}

#[tokio::test]
async fn streams_of_one_connection_count_towards_their_own_rules() {
    let mut few = rule("few", &["/few"]);
    few.limits.requests = some(3);
    let world = ruled(vec![few, rule("free", &["/free"])], |_| {}).await;
    let mut sender = world.http2().await;
    let mut answers = Vec::new();
    for n in 0..6 {
        answers.push(tokio::spawn(read(sender.send_request(to(&format!("/few/{n}"))))));
    }
    let mut passed = 0;
    for answer in answers {
        let (status, problem) = answer.await.unwrap();
        match status {
            StatusCode::OK => passed += 1,
            _ => assert!(
                status == StatusCode::FORBIDDEN && problem.contains("env.egress[0]:few.requests"),
                "{status} {problem}"
            ),
        }
    }
    assert_eq!(passed, 3);
    for _ in 0..5 {
        let (status, _) = read(sender.send_request(to("/free"))).await;
        assert_eq!(status, StatusCode::OK, "control: the other rule's");
    }
    assert_eq!(world.origin.seen().len(), 8);
    drop(sender);
    let settled = world.rig.settled(1).await.remove(0);
    let used = &settled["details"]["charged"]["env.egress[0]:few"];
    assert_eq!(
        (used["requests"].as_u64(), used["connections"].as_u64()),
        (Some(3), Some(1)),
        "{settled}"
    );
    assert_eq!(settled["details"]["inspected"], true);
    assert_eq!(settled["details"]["blind_up"], 0);
    assert_eq!(world.rig.refused("env.egress[0]:few.requests").await, 3);
    assert_eq!(world.rig.data(EventType::EgressLimit, 1).await.len(), 1);
}

#[tokio::test]
async fn a_runs_requests_and_rates_count_whatever_the_rule() {
    let world = ruled(vec![rule("all", &["/"])], |plan| {
        plan.environment.traffic.requests_per_minute = some(2);
    })
    .await;
    let mut sender = world.http2().await;
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let answer = sender.send_request(to("/x")).await.unwrap();
        assert_eq!(answer.status(), expected);
        assert_eq!(answer.headers().contains_key("retry-after"), expected != StatusCode::OK);
    }
    assert_eq!(world.origin.seen().len(), 2);
}

/// A body that does not say how long it is.
fn endless(pieces: usize) -> super::super::inspected::Body {
    let frames = futures::stream::iter((0..pieces).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))));
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test]
async fn contents_end_with_a_rules_bytes_and_with_the_largest_request() {
    let mut bytes = rule("bytes", &["/bytes"]);
    bytes.limits.bytes_up = some(5000);
    let mut size = rule("size", &["/size"]);
    size.max_request_bytes = some(5000);
    let world = ruled(vec![bytes, size], |_| {}).await;
    for (path, refused_by) in [
        ("/bytes", "env.egress[0]:bytes.bytes_up"),
        ("/size", "env.egress[1]:size.max_request_bytes"),
    ] {
        let mut sender = world.http2().await;
        let uri = format!("https://a.example.com{path}");
        let post = |body| Request::builder().method(Method::POST).uri(&uri).body(body).unwrap();
        let (status, _) = read(sender.send_request(post(endless(2)))).await;
        assert_eq!(status, StatusCode::OK, "control: {path}");
        let answer = timeout(SOON, sender.send_request(post(endless(20))))
            .await
            .expect("an end");
        // Where the server's answer had begun, its stream is reset; else the Guard says why.
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = answer.status();
        match answer.into_body().collect().await {
            Ok(told) => {
                let told = String::from_utf8_lossy(&told.to_bytes()).into_owned();
                assert!(
                    status == StatusCode::FORBIDDEN && told.contains(refused_by),
                    "{status} {told}"
                );
            }
            Err(_) => assert_eq!(status, StatusCode::OK, "{path}"),
        }
        a_while().await;
        assert_eq!(world.rig.refused(refused_by).await, 1);
    }
    // The rule's bytes are used, head included: nothing begins there any more.
    let mut sender = world.http1().await;
    let (status, problem) = read(sender.send_request(to_host("/bytes"))).await;
    assert!(
        status == StatusCode::FORBIDDEN && problem.contains("bytes_up"),
        "{status} {problem}"
    );
    let mut sender = world.http1().await;
    let (status, _) = read(sender.send_request(to_host("/size"))).await;
    assert_eq!(status, StatusCode::OK);
    drop(whole(""));
}

#[tokio::test]
async fn a_socket_counts_as_bytes_the_guard_does_not_read() {
    let mut limited = rule("ws", &["/ws"]);
    limited.limits.bytes_up = some(5000);
    let world = ruled(vec![limited], |_| {}).await;
    let mut sender = world.http1().await;
    let asking = Request::get("/ws")
        .header("host", "a.example.com")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let mut response = sender.send_request(asking.body(whole("")).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut socket = hyper_util::rt::TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let poured = async {
        let mut poured = 0;
        let mut heard = [0; 1000];
        loop {
            let sent = tokio::io::AsyncWriteExt::write_all(&mut socket, &[b'x'; 500]).await;
            let got = tokio::io::AsyncReadExt::read(&mut socket, &mut heard).await;
            match (sent, got) {
                (Ok(()), Ok(1..)) => poured += 500,
                _ => return poured,
            }
        }
    };
    let poured = timeout(SOON, poured).await.expect("an end");
    assert!((3000..6000).contains(&poured), "{poured}");
    let settled = world.rig.settled(1).await.remove(0);
    let details = &settled["details"];
    assert_eq!(details["ended"], "limit", "{settled}");
    let (blind, used) = (
        &details["blind_up"],
        &details["charged"]["env.egress[0]:ws"]["bytes_up"],
    );
    assert_eq!(used.as_u64(), Some(5000));
    assert!(
        blind.as_u64() > Some(3000) && blind.as_u64() < Some(5000),
        "the head is read: {blind}"
    );
}
