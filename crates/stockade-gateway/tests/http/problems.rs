//! Every problem there is, provoked over HTTP.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use stockade_api::{Problem, ProblemCode};
use stockade_domain::ActionKind;
use stockade_gateway::HttpLimits;

use crate::{
    harness::{Harness, agents_of, catalog},
    raw::{Answer, Call},
};

fn small() -> HttpLimits {
    HttpLimits {
        body_bytes: 2000,
        text_bytes: 500,
        body_timeout: Duration::from_millis(100),
        ..HttpLimits::default()
    }
}

fn json_bytes(path: &str, bytes: &[u8]) -> Call {
    Call::new("POST", path)
        .header("Content-Type", "application/json")
        .bytes(bytes)
}

fn task(extra: serde_json::Value) -> Call {
    let mut body = json!({ "prompt": "x" });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    Call::post("/v1/tasks", body)
}

/// Requests that are wrong whatever the store holds.
fn plain() -> Vec<(ProblemCode, Call)> {
    use ProblemCode as P;
    let builtin = json!({ "builtin": {} });
    vec![
        (P::MalformedJson, json_bytes("/v1/tasks", b"{")),
        (P::InvalidUtf8, json_bytes("/v1/tasks", b"{\"prompt\":\"\xff\"}")),
        (P::InvalidQuery, Call::get("/v1/runs?x=1")),
        (P::InvalidHeader, task(json!({})).header("Idempotency-Key", "")),
        (P::ForeignOrigin, Call::get("/").header("Origin", "http://evil.example")),
        (P::NotFound, Call::get("/v1/runs/run_00000000000000000000000000000000")),
        (P::NoSuchRoute, Call::get("/v1/nothing")),
        (P::MethodNotAllowed, Call::new("PUT", "/v1/tasks")),
        (
            P::RequestTimeout,
            json_bytes("/v1/tasks", b"{").header("Content-Length", "50"),
        ),
        (P::BodyTooLarge, json_bytes("/v1/tasks", &[b' '; 2001])),
        (P::UnsupportedMediaType, Call::new("POST", "/v1/tasks").bytes(b"{}")),
        (P::Misdirected, Call::get("/").header("Host", "evil.example")),
        (
            P::BackendUnavailable,
            task(json!({ "agent": "careful", "snapshot": { "from": "sha256:00" } })),
        ),
        (P::InvalidBody, task(json!({ "promptt": "" }))),
        (
            P::InvalidName,
            Call::new("PUT", "/v1/secrets/1")
                .header("Content-Type", "application/octet-stream")
                .bytes(b"x"),
        ),
        (P::EmptyText, task(json!({ "prompt": "" }))),
        (P::TextTooLong, task(json!({ "prompt": "x".repeat(501) }))),
        (P::UnknownAgent, task(json!({ "agent": "x" }))),
        (P::UnknownEnvironment, task(json!({ "environment": "x" }))),
        (
            P::MissingSecret,
            task(json!({ "agent": "careful", "environment": "bound" })),
        ),
        (P::UnknownBackend, task(json!({ "backend": "x" }))),
        (P::AgentUnavailable, task(json!({ "agent": "broken" }))),
        (P::ModelRequired, task(json!({ "agent": "builtin" }))),
        (P::InvalidLimits, task(json!({ "limits": { "wall_clock_seconds": 0 } }))),
        (
            P::InvalidPolicy,
            task(
                json!({ "agent": { "name": "a", "kind": builtin, "rules": [{ "id": "r", "match": {}, "verdict": "allow" }] } }),
            ),
        ),
        (P::Unpublishable, task(json!({ "agent": "careful", "publish": {} }))),
        (P::Repository, task(json!({ "agent": "careful", "repo": "missing" }))),
        (P::Internal, task(json!({ "agent": "careful", "repo": "panic" }))),
    ]
}

/// Requests that things in the store make wrong, on a harness of their own.
async fn of_things() -> Vec<(ProblemCode, Answer)> {
    use ProblemCode as P;
    let harness = Harness::start().await;
    let approval = harness.pending(ActionKind::Tool).await;
    let run = format!("/v1/runs/{}", approval.run);
    let decision = format!("/v1/approvals/{}/decision", approval.id);
    let key = |prompt: &str| Call::post("/v1/tasks", json!({ "prompt": prompt })).header("Idempotency-Key", "k");
    let mut found = vec![
        (P::Unauthorized, Call::get("/").send(harness.address).await),
        (P::NoArtifact, harness.get(&format!("{run}/diff")).await),
        (
            P::InvalidEventId,
            harness
                .call(
                    Call::get(&format!("{run}/events"))
                        .header("Accept", "text/event-stream")
                        .header("Last-Event-ID", "x"),
                )
                .await,
        ),
        (
            P::NotEditable,
            harness
                .post(&decision, json!({ "decision": "reject", "edited_args": {} }))
                .await,
        ),
    ];
    assert_eq!(
        harness.post(&decision, json!({ "decision": "reject" })).await.status,
        200
    );
    found.push((
        P::ApprovalClosed,
        harness.post(&decision, json!({ "decision": "approve" })).await,
    ));
    assert_eq!(harness.call(key("one")).await.status, 201);
    found.push((P::IdempotencyKeyReused, harness.call(key("two")).await));
    let (_, queued) = harness.queued().await;
    let cancel = format!("/v1/runs/{queued}/cancel");
    assert_eq!(harness.post(&cancel, json!({})).await.status, 200);
    found.push((P::RunEnded, harness.post(&cancel, json!({})).await));
    harness.store.unavailable(true);
    found.push((P::StoreUnavailable, Call::get("/readyz").send(harness.address).await));
    found.push((P::StoreUnavailable, harness.get("/v1/tasks").await));
    found.push((
        P::StoreUnavailable,
        harness.post("/v1/tasks", json!({ "prompt": "x" })).await,
    ));
    assert_eq!(Call::get("/healthz").send(harness.address).await.status, 200);
    harness.store.unavailable(false);
    assert_eq!(Call::get("/readyz").send(harness.address).await.status, 200);
    found
}

async fn provoked() -> Vec<(ProblemCode, Answer)> {
    let mut without_model = catalog();
    without_model.default_model = None;
    let harness = Harness::with(without_model, small()).await;
    let mut found = Vec::new();
    for (code, call) in plain() {
        found.push((code, harness.call(call).await));
    }
    let mut without_provider = catalog();
    without_provider.provider = None;
    let harness = Harness::with(without_provider, small()).await;
    found.push((ProblemCode::NoModel, harness.call(task(json!({}))).await));
    found.extend(of_things().await);
    found
}

#[tokio::test]
async fn every_problem_is_a_problem_of_its_code() {
    let found = provoked().await;
    for (code, answer) in &found {
        let text = answer.text();
        assert_eq!(
            (answer.code().as_str(), answer.status),
            (code.as_str(), code.status()),
            "{text}"
        );
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (problem.status, problem.title.as_str()),
            (code.status(), code.title()),
            "{text}"
        );
        assert!(!problem.detail.is_empty(), "{text}");
        assert_eq!(problem.instance.is_some(), *code == ProblemCode::Internal, "{text}");
        assert!(!text.contains("secret-detail") && !text.contains("stk_"), "{text}");
    }
    let provoked: BTreeSet<_> = found.iter().map(|(code, _)| *code).collect();
    let missing: Vec<_> = ProblemCode::ALL
        .iter()
        .filter(|code| !provoked.contains(code))
        .collect();
    assert!(missing.is_empty(), "nobody provokes {missing:?}");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_and_a_panic_leaves_the_gateway_well() {
    let harness = Harness::start().await;
    let answer = harness.call(Call::new("DELETE", "/v1/tasks")).await;
    let mut allowed: Vec<_> = answer.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let broken = harness
        .post("/v1/tasks", json!({ "prompt": "x", "repo": "panic" }))
        .await;
    assert_eq!(broken.code(), "internal");
    assert_eq!(
        harness
            .post("/v1/tasks", json!({ "prompt": "x", "repo": "fine" }))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_default_that_does_not_exist_is_said_like_any_other_name() {
    let mut odd = catalog();
    odd.agents = agents_of([]);
    odd.backends = Vec::new();
    let harness = Harness::with(odd, HttpLimits::default()).await;
    let answer = harness.call(task(json!({}))).await;
    assert_eq!(
        (answer.code().as_str(), &answer.json()["known"]),
        ("unknown_agent", &json!([]))
    );
    let inline = json!({ "agent": { "name": "a", "kind": { "builtin": {} } } });
    assert_eq!(harness.call(task(inline)).await.code(), "unknown_backend");
}
