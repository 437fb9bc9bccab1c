//! Every route answers to those it is for and to nobody else.

use serde_json::{Value, json};
use stockade_api::v1::CreateRevocation;
use stockade_domain::{Approval, RevocationId, RunId, TaskId, TokenId};
use stockade_gateway::{Audience, ROUTES, Route};
use stockade_ports::{Clock, Store};

use crate::{
    harness::Harness,
    raw::{Answer, Call},
};

/// One of each thing of the first team.
struct Things {
    task: TaskId,
    run: RunId,
    approval: Approval,
    token: TokenId,
    revocation: RevocationId,
}

impl Things {
    async fn of(harness: &Harness) -> Self {
        let approval = harness.pending(stockade_domain::ActionKind::Tool).await;
        let run = harness.store.run(None, approval.run).await.unwrap();
        for name in ["patch", "receipt", "bundle"] {
            harness.store.put_artifact(run.id, name, "x".into()).await.unwrap();
        }
        let secret = "patch".parse().unwrap();
        let now = harness.clock.now();
        harness
            .store
            .put_secret(run.team, &secret, "x".into(), now)
            .await
            .unwrap();
        let token = harness.store.tokens(run.team).await.unwrap()[0].id;
        let wanted = CreateRevocation {
            hosts: "a.example.com".to_owned(),
            reason: String::new(),
        };
        let revocation = harness.client().revoke("default", &wanted).await.unwrap().id;
        Self {
            task: run.task,
            run: run.id,
            approval,
            token,
            revocation,
        }
    }

    fn path(&self, route: &Route) -> String {
        let id = match route.path.split('/').nth(2) {
            Some("tasks") => self.task.to_string(),
            Some("runs") => self.run.to_string(),
            Some("approvals") => self.approval.id.to_string(),
            Some("tokens") => self.token.to_string(),
            Some("environments") => self.revocation.to_string(),
            _ => String::new(),
        };
        let path = match route.path {
            "/v1/environments/{name}/explain" => {
                "/v1/environments/default/explain?url=https://a.example.com/".to_owned()
            }
            path if path.starts_with("/v1/environments/") => path.replace("{id}", &id).replace("{name}", "default"),
            path => path.replace("{id}", &id).replace("{name}", "patch"),
        };
        assert!(!path.contains('{'), "the test knows no value for {path}");
        path
    }

    fn call(&self, route: &Route) -> Call {
        let path = self.path(route);
        match route.method.as_str() {
            "POST" => Call::post(&path, body_for(route.path)),
            "PUT" => Call::new("PUT", &path)
                .header("Content-Type", "application/octet-stream")
                .bytes(b"value"),
            method => Call::new(method, &path),
        }
    }
}

/// A body that the route takes, so that nothing but the identity can be wrong.
fn body_for(path: &str) -> Value {
    match path {
        "/v1/tasks" => json!({ "prompt": "do it" }),
        "/v1/tasks/{id}/runs" | "/v1/runs/{id}/cancel" => json!({}),
        "/v1/runs/{id}/messages" => json!({ "text": "hello" }),
        "/v1/approvals/{id}/decision" => json!({ "decision": "approve" }),
        "/v1/environments/{name}/revocations" => json!({ "hosts": "b.example.com" }),
        "/v1/tokens" => json!({ "name": "bob" }),
        other => panic!("the test knows no body for {other}"),
    }
}

fn shown(route: &Route, answer: &Answer) -> String {
    format!("{} {}: {} {}", route.method, route.path, answer.status, answer.text())
}

#[tokio::test]
async fn routes_answer_only_to_a_token_that_works() {
    let harness = Harness::start().await;
    let things = Things::of(&harness).await;
    let wrong: [&[(&str, &str)]; 7] = [
        &[],
        &[("Authorization", "Bearer stk_wrong")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", "Basic YWxpY2U6eA==")],
        &[("Authorization", &harness.token)],
        &[("Authorization", "Bearer \u{fc}")],
        &[
            ("Authorization", &format!("Bearer {}", harness.token)),
            ("Authorization", "Bearer stk_wrong"),
        ],
    ];
    for route in ROUTES.iter().filter(|route| route.audience != Audience::Public) {
        for headers in wrong {
            let mut call = things.call(route);
            for (name, value) in headers {
                call = call.header(name, value);
            }
            let answer = call.send(harness.address).await;
            let shown = shown(route, &answer);
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "unauthorized"),
                "{shown}"
            );
            assert!(
                answer.header("www-authenticate").starts_with("Bearer realm="),
                "{shown}"
            );
            assert!(!answer.text().contains(&harness.token), "{shown}");
        }
    }
    // Nothing of all that took effect.
    let approval = harness.store.approval(None, things.approval.id).await.unwrap();
    assert_eq!(approval, things.approval);
    assert_eq!(harness.client().tokens().await.unwrap().items.len(), 1);
    assert_eq!(harness.engine.woken(), vec![things.run]);
}

/// What is public is so on purpose, and tells nothing of a team.
#[tokio::test]
async fn public_routes_are_these_two() {
    let harness = Harness::start().await;
    let public: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.audience == Audience::Public)
        .map(|route| (route.method.as_str(), route.path))
        .collect();
    assert_eq!(public, [("GET", "/healthz"), ("GET", "/readyz")]);
    for (_, path) in public {
        let answer = Call::get(path).send(harness.address).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"ok"}"#));
    }
}

/// The control of the tests around it: with the right token every route answers.
#[tokio::test]
async fn routes_answer_to_the_right_token() {
    let harness = Harness::start().await;
    let things = Things::of(&harness).await;
    // What ends things comes last: deciding, cancelling, revoking.
    let ending = |route: &&Route| route.path.ends_with("/decision") || route.path.ends_with("/cancel");
    let revoking = |route: &&Route| route.method.as_str() == "DELETE";
    let rest = ROUTES.iter().filter(|r| !ending(r) && !revoking(r));
    let ordered = rest
        .chain(ROUTES.iter().filter(ending))
        .chain(ROUTES.iter().filter(revoking));
    let mut answered = 0;
    for route in ordered {
        let answer = harness.call(things.call(route)).await;
        assert!((200..300).contains(&answer.status), "{}", shown(route, &answer));
        answered += 1;
    }
    assert_eq!(answered, ROUTES.len());
    let after = harness.get("/v1/tasks").await;
    assert_eq!(after.status, 401, "the token revoked itself");
}

#[tokio::test]
async fn another_team_sees_and_changes_nothing() {
    let harness = Harness::start().await;
    let things = Things::of(&harness).await;
    let before = harness.store.run(None, things.run).await.unwrap();
    for route in ROUTES.iter().filter(|route| route.audience != Audience::Public) {
        let answer = things.call(route).token(&harness.other).send(harness.address).await;
        let shown = shown(route, &answer);
        if route.path.contains("{id}") {
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{shown}");
        } else {
            assert!((200..300).contains(&answer.status), "{shown}");
            for id in [
                things.task.to_string(),
                things.run.to_string(),
                things.approval.id.to_string(),
                things.token.to_string(),
                things.revocation.to_string(),
            ] {
                assert!(!answer.text().contains(&id), "{shown}");
            }
        }
    }
    let stream = Call::get(&format!("/v1/runs/{}/events", things.run))
        .header("Accept", "text/event-stream")
        .token(&harness.other)
        .send(harness.address)
        .await;
    assert_eq!(stream.status, 404);
    assert_eq!(harness.store.run(None, things.run).await.unwrap(), before);
    let theirs = harness.client_of_other_team().runs(&Default::default()).await.unwrap();
    assert_eq!(theirs.items.len(), 1, "what they created is theirs");
}

#[tokio::test]
async fn expired_and_revoked_tokens_stop_working() {
    let harness = Harness::start().await;
    let alice = harness.client();
    let wanted = stockade_api::v1::CreateToken {
        name: "bob".to_owned(),
        expires_in_seconds: Some(60),
    };
    let bob = alice.create_token(&wanted).await.unwrap();
    let as_bob = async || {
        let answer = Call::get("/").token(bob.secret.expose()).send(harness.address).await;
        (answer.status, answer.json()["cause"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(as_bob().await, (200, String::new()));
    harness.clock.advance_ms(59_999);
    assert_eq!(as_bob().await.0, 200);
    harness.clock.advance_ms(1);
    assert_eq!(as_bob().await, (401, "expired".to_owned()));
    harness
        .store
        .revoke_token(stockade_domain::TeamId::DEFAULT, bob.token.id, harness.clock.now())
        .await
        .unwrap();
    assert_eq!(as_bob().await, (401, "revoked".to_owned()));
}

#[tokio::test]
async fn what_is_not_in_the_map_is_not_there() {
    let harness = Harness::start().await;
    for path in [
        "/v1",
        "/v1/",
        "/v2/tasks",
        "/v1/tasks/",
        "/metrics",
        "/v1/runs/x/y",
        "//v1/tasks",
        "/v1/tasks/..",
        "/llm/anthropic/v1/messages",
    ] {
        let answer = harness.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    // The router is built in one place, from the map.
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let builds = [".route(", ".nest(", ".merge(", ".route_service(", ".nest_service("]
            .iter()
            .map(|call| text.matches(call).count())
            .sum::<usize>();
        let allowed = usize::from(path.ends_with("routes.rs"));
        assert_eq!(builds, allowed, "{} adds routes beside the map", path.display());
    }
}

#[test]
fn the_documentation_names_every_route_and_problem() {
    let docs = include_str!("../../../../docs/api.md");
    for route in ROUTES {
        let named = format!("`{} {}`", route.method, route.path);
        assert!(docs.contains(&named), "docs/api.md does not have {named}");
    }
    for code in stockade_api::ProblemCode::ALL {
        let row = format!("| `{code}` | {} |", code.status());
        assert!(docs.contains(&row), "docs/api.md does not have the row {row}");
    }
}
