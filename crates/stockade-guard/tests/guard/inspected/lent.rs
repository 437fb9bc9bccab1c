//! Secrets that the Guard puts into requests, through a vault as an installation has one.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use stockade_domain::{ActionKind, EventType};

use super::{World, origin::Setup, pki::Pki, plan, read, to, to_host, whole};

const SECRET: &str = "canary-7c1f-very-secret-token";

async fn world() -> World {
    bound(json!("bearer")).await
}

async fn bound(kind: serde_json::Value) -> World {
    let pki = Pki::new();
    let mut plan = plan(&pki);
    plan.inspector = None;
    plan.environment.credentials = serde_json::from_value(json!([{
        "secret": "API", "kind": kind, "hosts": ["a.example.com"], "methods": ["GET", "POST"],
        "paths": ["/authorized", "/head", "/echo", "/ws"], "env": "API_TOKEN",
    }]))
    .unwrap();
    plan.environment.domains.push("*.wide.example.com".to_owned());
    plan.secrets = vec![("API", SECRET)];
    World::of(plan, Setup::tls(pki.server(&["a.example.com", "b.example.com"]))).await
}

fn placeholder(world: &World) -> String {
    let variables = world.rig.session.as_ref().unwrap().variables();
    let [(name, value)] = variables.as_slice() else {
        panic!("one variable: {variables:?}")
    };
    assert_eq!(name, "API_TOKEN");
    value.clone()
}

fn with_token(path: &str, token: &str) -> Request<super::Body> {
    let mut request = to(path);
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn a_covered_request_gets_the_secret_and_the_use_is_an_action() {
    let world = world().await;
    let held = placeholder(&world);
    let mut sender = world.http2().await;
    let (status, answer) = read(sender.send_request(with_token("/authorized", &held))).await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, "welcome"));
    let seen = world.origin.seen().join("\n");
    assert!(seen.contains(&format!("authorization: Bearer {SECRET}")), "{seen}");
    assert!(!seen.contains(&held), "{seen}");
    let events = world.rig.events().await;
    let used = |event: &&stockade_domain::Event| event.data["kind"] == json!(ActionKind::Credential.as_str());
    assert!(events.iter().any(|event| used(&event)), "{events:?}");
    let written = serde_json::to_string(&events).unwrap();
    assert!(
        written.contains("API for GET https://a.example.com:443/authorized"),
        "{written}"
    );
    assert!(!written.contains(SECRET), "no event holds a value");
}

#[tokio::test]
async fn what_a_server_echoes_of_it_does_not_come_in() {
    let world = world().await;
    let mut sender = world.http2().await;
    let (status, head) = read(sender.send_request(to("/head"))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(head.contains("authorization: Bearer [redacted]"), "{head}");
    // A request that no binding covers is answered by the same server, which knows it by now.
    let post = Request::builder().method("POST").uri("https://a.example.com/other");
    let (_, echo) = read(sender.send_request(post.body(whole(format!("I saw {SECRET}"))).unwrap())).await;
    assert_eq!(echo, "I saw [redacted]");
}

#[tokio::test]
async fn a_placeholder_is_refused_anywhere_but_in_its_place() {
    let world = world().await;
    let held = placeholder(&world);
    let mut sender = world.http2().await;
    let post = |body: String| {
        let request = Request::builder().method("POST").uri("https://a.example.com/echo");
        request.body(whole(body)).unwrap()
    };
    for request in [
        with_token("/other", &held),
        to(&format!("/other?token={held}")),
        with_token("/authorized", "stk-placeholder-00000000000000000000000000"),
    ] {
        let path = request.uri().to_string();
        let (status, problem) = read(sender.send_request(request)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {problem}");
        assert!(problem.contains("stockade.credential_placeholder"), "{path}: {problem}");
    }
    assert!(world.origin.seen().is_empty(), "{:?}", world.origin.seen());
    // In a body the head may have left; the body does not.
    let (status, _) = read(sender.send_request(post("harmless".to_owned()))).await;
    assert_eq!(status, StatusCode::OK, "the control");
    let leaked = sender.send_request(post(format!("see {held}"))).await;
    if let Ok(answer) = leaked {
        let body = answer.into_body().collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&body).contains(&held),
            "it came back, so it went out"
        );
    }
    assert!(!world.rig.told(EventType::EgressDenied).await.is_empty());
}

#[tokio::test]
async fn a_name_that_holds_a_placeholder_is_not_looked_up() {
    let world = world().await;
    let held = placeholder(&world);
    let (code, _) = world
        .rig
        .resolve(&format!("{held}.wide.example.com"), RecordType::A)
        .await;
    assert_eq!(code, ResponseCode::NXDomain, "it does not exist inside");
    let (code, addresses) = world.rig.resolve("b.wide.example.com", RecordType::A).await;
    assert_eq!((code, addresses.len()), (ResponseCode::NoError, 1), "the control");
    let denied = world.rig.denied().await;
    let refused = denied
        .iter()
        .any(|line| line.contains("stockade.credential_placeholder"));
    assert!(refused, "{denied:?}");
}

#[tokio::test]
async fn a_token_is_asked_for_over_a_connection_of_the_guards_own() {
    let oauth = json!({ "oauth_client": { "token_url": "https://b.example.com/token", "client_id": "me" } });
    let world = bound(oauth).await;
    let mut sender = world.http2().await;
    for _ in 0..2 {
        let (status, answer) = read(sender.send_request(to("/authorized"))).await;
        assert_eq!((status, answer.as_str()), (StatusCode::OK, "welcome"));
    }
    let seen = world.origin.seen();
    assert_eq!(
        seen.iter().filter(|line| *line == "POST /token").count(),
        1,
        "kept for the next: {seen:?}"
    );
    let told = seen.join("\n");
    assert_eq!(
        told.matches("authorization: Bearer minted-for-the-guard").count(),
        2,
        "{told}"
    );
    assert!(
        !told.contains(SECRET),
        "the secret goes to the token's server alone: {told}"
    );
}

#[tokio::test]
async fn an_answer_that_switches_protocols_tells_nothing_either() {
    let world = world().await;
    let mut sender = world.http1().await;
    let mut request = to_host("/ws");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["x-told"], "Bearer [redacted]");
}
