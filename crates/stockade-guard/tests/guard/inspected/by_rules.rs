//! Rules of an environment that look at requests, as the policy itself holds them.

use std::num::NonZeroU64;

use http::{Method, Request, StatusCode};
use stockade_domain::{Decision, EgressRule, EventType, RuleVerdict};

use super::{World, origin::Setup, pki::Pki, plan, read, to, to_host, whole};

fn rule(name: &str, verdict: RuleVerdict, methods: &[&str], paths: &[&str]) -> EgressRule {
    let text = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    EgressRule {
        name: Some(name.to_owned()),
        methods: text(methods),
        paths: text(paths),
        ..EgressRule::hosts(verdict, &["a.example.com"])
    }
}

async fn ruled(rules: Vec<EgressRule>) -> World {
    let pki = Pki::new();
    let setup = Setup::tls(pki.server(&["a.example.com", "b.example.com"]));
    let mut plan = plan(&pki);
    plan.inspector = None;
    plan.environment.domains = vec!["b.example.com".to_owned()];
    plan.environment.egress = rules;
    World::of(plan, setup).await
}

/// Reading is allowed, writing below one path waits, and the rest is refused.
fn three() -> Vec<EgressRule> {
    vec![
        rule("no-admin", RuleVerdict::Deny, &[], &["/admin"]),
        rule("reads", RuleVerdict::Allow, &["GET"], &[]),
        rule("writes", RuleVerdict::Ask, &["POST"], &["/items"]),
    ]
}

#[tokio::test]
async fn methods_and_paths_are_judged_request_by_request() {
    let world = ruled(three()).await;
    let mut sender = world.http2().await;
    let (status, _) = read(sender.send_request(to("/items"))).await;
    assert_eq!(status, StatusCode::OK, "the control");
    for (method, path, rule) in [
        (Method::GET, "/admin/x", "env.egress[0]:no-admin"),
        (Method::GET, "/%61dmin", "env.egress[0]:no-admin"),
        (Method::GET, "/x/../admin", "stockade."),
        (Method::GET, "/x%2f..%2fadmin", "stockade."),
        (Method::DELETE, "/items", "env.egress"),
    ] {
        let uri = format!("https://a.example.com{path}");
        let request = Request::builder()
            .method(method.clone())
            .uri(uri)
            .body(whole(""))
            .unwrap();
        let (status, problem) = read(sender.send_request(request)).await;
        assert!(status.is_client_error(), "{method} {path}: {status}");
        assert!(problem.contains(rule), "{method} {path}: {problem}");
    }
    assert_eq!(world.origin.seen().len(), 1, "only the control came through");
}

#[tokio::test]
async fn a_request_waits_for_its_person() {
    let world = ruled(three()).await;
    for (decision, expected) in [
        (Decision::Approve, StatusCode::OK),
        (Decision::Reject, StatusCode::FORBIDDEN),
    ] {
        let mut sender = world.http1().await;
        let (mut parts, body) = to_host("/items?note=1").into_parts();
        parts.method = Method::POST;
        let before = world.origin.seen().len();
        let answer = tokio::spawn(async move { read(sender.send_request(Request::from_parts(parts, body))).await });
        let approval = world.rig.pending().await;
        assert_eq!(approval.action.target, "POST https://a.example.com:443/items?note=1");
        assert_eq!(approval.rule, "env.egress[2]:writes");
        assert_eq!(world.origin.seen().len(), before, "nothing goes before the decision");
        world.rig.decide(decision).await;
        let (status, problem) = answer.await.unwrap();
        assert_eq!(status, expected, "{problem}");
    }
}

#[tokio::test]
async fn content_beyond_what_a_rule_allows_is_refused() {
    let mut limited = rule("small", RuleVerdict::Allow, &["POST"], &[]);
    limited.max_request_bytes = NonZeroU64::new(4);
    let world = ruled(vec![limited]).await;
    let mut sender = world.http2().await;
    for (content, expected) in [("1234", StatusCode::OK), ("12345", StatusCode::FORBIDDEN)] {
        let request = Request::builder().method(Method::POST).uri("https://a.example.com/x");
        let (status, problem) = read(sender.send_request(request.body(whole(content)).unwrap())).await;
        assert_eq!(status, expected, "{problem}");
    }
}

#[tokio::test]
async fn where_no_rule_looks_at_requests_nothing_is_opened() {
    let world = ruled(three()).await;
    let error = world.shake_hands("b.example.com", world.client(&[])).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "the server's own: {error}");
    let quiet = ruled(vec![EgressRule::hosts(RuleVerdict::Allow, &["a.example.com"])]).await;
    let session = quiet.rig.session.as_ref().unwrap();
    assert!(session.trust().is_none(), "a run that needs none has no authority");
    assert!(quiet.rig.told(EventType::EgressDenied).await.is_empty());
}
