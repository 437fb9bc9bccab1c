//! Tokens: the secret is told once.

use stockade_api::v1::CreateToken;
use stockade_domain::TeamId;
use stockade_gateway::hash_token;
use stockade_ports::Store;

use crate::{harness::Harness, raw::Call};

#[tokio::test]
async fn a_secret_is_told_once_and_never_kept() {
    let harness = Harness::start().await;
    let client = harness.client();
    let wanted = CreateToken {
        name: "ci".to_owned(),
        expires_in_seconds: None,
    };
    let created = client.create_token(&wanted).await.unwrap();
    let secret = created.secret.expose();
    assert!(secret.starts_with("stk_"));
    assert!(!format!("{created:?}").contains(secret));
    let stored = harness.store.tokens(TeamId::DEFAULT).await.unwrap();
    let record = stored.iter().find(|record| record.id == created.token.id).unwrap();
    assert_eq!(record.secret_sha256, hash_token(secret));
    assert!(!format!("{stored:?}").contains(secret));
    let listed = harness.get("/v1/tokens").await.text();
    assert!(listed.contains("\"ci\"") && !listed.contains(secret) && !listed.contains(&record.secret_sha256));
    let about = Call::get("/").token(secret).send(harness.address).await.json();
    assert_eq!(about["token"], "ci");
    let revoked = client.revoke_token(created.token.id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(Call::get("/").token(secret).send(harness.address).await.status, 401);
}

#[tokio::test]
async fn odd_tokens_are_not_made() {
    let harness = Harness::start().await;
    for body in [
        r#"{"name":""}"#.to_owned(),
        r#"{"name":"a\nb"}"#.to_owned(),
        format!(r#"{{"name":"{}"}}"#, "x".repeat(129)),
        r#"{"name":"a","expires_in_seconds":0}"#.to_owned(),
        format!(r#"{{"name":"a","expires_in_seconds":{}}}"#, u64::MAX),
        r#"{"name":"a","expires_in_seconds":-1}"#.to_owned(),
        r#"{"name":"a","team":"team_00000000000000000000000000000001"}"#.to_owned(),
    ] {
        let call = Call::new("POST", "/v1/tokens")
            .header("Content-Type", "application/json")
            .bytes(body.as_bytes());
        let answer = harness.call(call).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_body"), "{body}");
    }
    assert_eq!(harness.client().tokens().await.unwrap().items.len(), 1);
}
