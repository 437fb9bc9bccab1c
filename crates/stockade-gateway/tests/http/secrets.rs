//! Secrets: values go in and never come back.

use serde_json::json;
use stockade_api::v1::Secret;
use stockade_domain::TeamId;
use stockade_ports::Store;

use crate::{
    harness::Harness,
    raw::{Answer, Call},
};

const CANARY: &[u8] = b"canary-value-\x00\xff-8d1e";

fn put(name: &str, value: &[u8]) -> Call {
    Call::new("PUT", &format!("/v1/secrets/{name}"))
        .header("Content-Type", "application/octet-stream")
        .bytes(value)
}

fn delete(name: &str) -> Call {
    Call::new("DELETE", &format!("/v1/secrets/{name}"))
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{}",
        answer.text()
    );
    assert!(!answer.text().contains("canary"), "{}", answer.text());
}

#[tokio::test]
async fn a_secret_is_set_listed_replaced_and_removed() {
    let harness = Harness::start().await;
    let answer = harness.call(put("GITHUB_TOKEN", CANARY)).await;
    assert_eq!((answer.status, answer.json()["version"].as_u64()), (201, Some(1)));
    harness.clock.advance_ms(1000);
    let again = harness.call(put("GITHUB_TOKEN", b"canary-again")).await;
    assert_eq!((again.status, again.json()["version"].as_u64()), (200, Some(2)));
    let name = "a.b-c".parse().unwrap();
    let client = harness.client();
    client.put_secret(&name, b"canary-typed".to_vec()).await.unwrap();
    let listed = client.secrets().await.unwrap().items;
    let shown = |s: &Secret| (s.name.to_string(), s.version, s.created_at == s.updated_at);
    let rows: Vec<_> = listed.iter().map(shown).collect();
    assert_eq!(
        rows,
        [("GITHUB_TOKEN".to_owned(), 2, false), ("a.b-c".to_owned(), 1, true)]
    );
    for text in [
        answer.text(),
        again.text(),
        harness.get("/v1/secrets").await.text(),
        format!("{:?}", harness.store.secrets(TeamId::DEFAULT).await.unwrap()),
    ] {
        assert!(!text.contains("canary"), "{text}");
    }
    // There is no way to read one.
    refused(
        &harness.get("/v1/secrets/GITHUB_TOKEN").await,
        405,
        "method_not_allowed",
    );
    assert_eq!(client.remove_secret(&name).await.unwrap().name, name);
    assert_eq!(harness.call(delete("GITHUB_TOKEN")).await.status, 200);
    refused(&harness.call(delete("GITHUB_TOKEN")).await, 404, "not_found");
    assert!(client.secrets().await.unwrap().items.is_empty());
}

#[tokio::test]
async fn another_teams_secret_is_not_there() {
    let harness = Harness::start().await;
    let theirs = harness.client_of_other_team();
    harness.call(put("token", CANARY)).await;
    assert!(theirs.secrets().await.unwrap().items.is_empty());
    let answer = delete("token").token(&harness.other).send(harness.address).await;
    refused(&answer, 404, "not_found");
    let name = "token".parse().unwrap();
    let own = theirs.put_secret(&name, b"theirs".to_vec()).await.unwrap();
    assert_eq!(own.version, 1);
    theirs.remove_secret(&name).await.unwrap();
    let ours = harness.client().secrets().await.unwrap().items;
    assert_eq!((ours.len(), ours[0].version), (1, 1));
}

#[tokio::test]
async fn a_run_needs_the_secrets_of_its_environment() {
    let harness = Harness::start().await;
    let task = || Call::post("/v1/tasks", json!({ "prompt": "x", "environment": "bound" }));
    // Another team's secret of that name is of no use.
    let name = "GITHUB_TOKEN".parse().unwrap();
    harness
        .client_of_other_team()
        .put_secret(&name, b"canary".to_vec())
        .await
        .unwrap();
    let answer = harness.call(task()).await;
    refused(&answer, 422, "missing_secret");
    assert_eq!(answer.json()["missing"], json!(["GITHUB_TOKEN"]));
    assert!(
        answer.text().contains("stockade secret set GITHUB_TOKEN"),
        "{}",
        answer.text()
    );
    assert_eq!(harness.get("/v1/tasks").await.json()["items"], json!([]));
    harness.call(put("GITHUB_TOKEN", CANARY)).await;
    let created = harness.call(task()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let again = format!("/v1/tasks/{}/runs", created.json()["task"]["id"].as_str().unwrap());
    let body = json!({ "environment": "bound" });
    assert_eq!(harness.post(&again, body.clone()).await.status, 201);
    harness.call(delete("GITHUB_TOKEN")).await;
    refused(&harness.post(&again, body).await, 422, "missing_secret");
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_without_repeating_it() {
    let harness = Harness::start().await;
    for name in ["1x", "_", "a%2fb", "a%20b", "%c3%a4", "%ff", &"x".repeat(65)] {
        refused(&harness.call(put(name, CANARY)).await, 422, "invalid_name");
    }
    refused(&harness.call(put("x", b"")).await, 422, "invalid_body");
    refused(
        &harness.call(put("x", &[b'c'; (64 << 10) + 1])).await,
        413,
        "body_too_large",
    );
    let json = Call::new("PUT", "/v1/secrets/x")
        .header("Content-Type", "application/json")
        .bytes(b"\"canary\"");
    refused(&harness.call(json).await, 415, "unsupported_media_type");
    let keyed = put("x", CANARY).header("Idempotency-Key", "k");
    refused(&harness.call(keyed).await, 400, "invalid_header");
    refused(&harness.call(put("x?value=canary", CANARY)).await, 400, "invalid_query");
    assert!(harness.client().secrets().await.unwrap().items.is_empty());
    // The control: the largest there may be.
    assert_eq!(harness.call(put("x", &[b'c'; 64 << 10])).await.status, 201);
    harness.store.unavailable(true);
    // Without the store nobody is known, so nothing is said.
    refused(&harness.call(put("y", CANARY)).await, 503, "store_unavailable");
}
