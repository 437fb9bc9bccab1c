//! The door to models against a simulated store and provider.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use stockade_domain::{BudgetLimits, Digest, FailureClass, Wire};
use stockade_gate::{Refusal, model::DoorError};
use stockade_ports::ModelError;
use support::{Answer, Installation, chat, collect, events_of, request};

#[tokio::test]
async fn a_call_passes_unchanged_and_is_settled_before_its_body_ends() {
    let i = Installation::start(BudgetLimits::default(), None, Answer::stream(&chat(7, 5))).await;
    let mut sent = request(
        Wire::OpenaiChat,
        r#"{ "model":"scripted", "stream": true,"future_field":{"a":[1]} }"#,
    );
    sent.headers.insert("x-unknown", HeaderValue::from_static("kept"));
    sent.headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    let answer = i.door.call(&i.scope, sent.clone()).await.unwrap();
    assert_eq!(answer.status, 200);
    let overhead: f64 = answer.headers["x-stockade-overhead-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(overhead < 1000.0);
    let body = collect(answer).await.unwrap();
    assert_eq!(body, chat(7, 5));
    let seen = i.provider.requests();
    assert_eq!(seen[0].body, sent.body);
    assert_eq!(seen[0].headers.get("x-unknown"), sent.headers.get("x-unknown"));
    assert!(
        seen[0].headers.get("accept-encoding").is_none(),
        "a compressed answer cannot be metered"
    );
    let call = &events_of(&i).await[0];
    let details = &call["details"];
    assert_eq!(
        details["usage"],
        json!({"input": 7, "output": 5, "cache_read": 0, "cache_write": 0})
    );
    assert_eq!(
        (&details["status"], &details["wire"], &details["stream"]),
        (&json!(200), &json!("openai_chat"), &json!(true))
    );
    assert!(details["first_byte_ms"].is_u64() && details["duration_ms"].is_u64());
    assert_eq!(call["spent"]["tokens"], 12);
    assert_eq!(i.used().await.model_requests, 1);
    let args = json!({"model": "scripted", "stream": true, "bytes": sent.body.len(), "request_sha256": Digest::of_bytes(&sent.body).hex()});
    assert_eq!(i.actions().await[0].action.args, args);
}

/// Each piece is handed on before the next one exists.
#[tokio::test]
async fn a_stream_is_not_held_back() {
    let (pieces, answer) = Answer::channel();
    let i = Installation::start(BudgetLimits::default(), None, answer).await;
    let mut body = i
        .door
        .call(&i.scope, request(Wire::OpenaiChat, r#"{"model":"m","stream":true}"#))
        .await
        .unwrap()
        .body;
    for text in ["data: {}\n", "\n", "da"] {
        pieces.unbounded_send(Ok(Bytes::from(text))).unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), text);
    }
    drop(pieces);
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn of_a_thousand_calls_at_once_exactly_the_limit_reaches_the_provider() {
    let limits = BudgetLimits {
        model_requests: Some(100),
        ..BudgetLimits::default()
    };
    let i = Arc::new(Installation::start(limits, None, Answer::stream(&chat(1, 1))).await);
    let calls = (0..1000).map(|n| {
        let i = Arc::clone(&i);
        tokio::spawn(async move {
            let sent = request(
                Wire::OpenaiChat,
                &format!(r#"{{"model":"scripted","n_th":{n},"max_tokens":1}}"#),
            );
            match i.door.call(&i.scope, sent).await {
                Ok(answer) => collect(answer).await.map(|_| true).unwrap(),
                Err(DoorError::Refused(Refusal::Exhausted { exhausted })) => {
                    assert_eq!((exhausted.resource.as_str(), exhausted.limit), ("model_requests", 100));
                    false
                }
                Err(error) => panic!("{error}"),
            }
        })
    });
    let passed = join_all(calls)
        .await
        .into_iter()
        .filter(|passed| *passed.as_ref().unwrap())
        .count();
    assert_eq!(passed, 100);
    assert_eq!(i.provider.requests().len(), 100);
    assert_eq!(i.used().await.model_requests, 100);
}

#[tokio::test]
async fn a_call_is_reserved_by_what_it_may_use() {
    let limits = BudgetLimits {
        tokens: Some(1_000),
        ..BudgetLimits::default()
    };
    let i = Installation::start(limits, None, Answer::stream(&chat(3, 3))).await;
    let ask = |max: u64| {
        i.door.call(
            &i.scope,
            request(
                Wire::OpenaiChat,
                &json!({"model": "scripted", "max_tokens": max}).to_string(),
            ),
        )
    };
    let refused = ask(2_000).await.err().unwrap();
    assert!(
        matches!(refused, DoorError::Refused(Refusal::Exhausted { .. })),
        "{refused}"
    );
    let body = refused.body(Wire::OpenaiChat);
    assert_eq!(body.status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&body.body).contains("\"type\":\"budget_exceeded\""));
    collect(ask(500).await.unwrap()).await.unwrap();
    assert_eq!(i.used().await.tokens, 6, "what was not used is given back");
    assert!(i.reserved().await.tokens == 0);
}

#[tokio::test]
async fn a_cost_cap_holds_for_models_of_unknown_price() {
    let limits = BudgetLimits {
        cost_micro_usd: Some(10_000),
        ..BudgetLimits::default()
    };
    let i = Installation::start(limits, None, Answer::stream(&chat(10, 10))).await;
    let ask = |model: &str, max: u64| {
        request(
            Wire::OpenaiChat,
            &json!({"model": model, "max_tokens": max}).to_string(),
        )
    };
    assert!(i.door.call(&i.scope, ask("never-heard-of", 1_000)).await.is_err());
    collect(i.door.call(&i.scope, ask("scripted", 1_000_000)).await.unwrap())
        .await
        .unwrap();
    assert_eq!(i.used().await.cost_micro_usd, 0);
    collect(i.door.call(&i.scope, ask("never-heard-of", 10)).await.unwrap())
        .await
        .unwrap();
    assert_eq!(i.used().await.cost_micro_usd, 10 * 15 + 10 * 75);
    let note = events_of(&i).await.pop().unwrap()["details"]["note"].clone();
    assert!(note.as_str().unwrap().contains("no price"), "{note}");
}

#[tokio::test]
async fn an_upstream_error_passes_through_and_costs_no_tokens() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("2"));
    let body = r#"{"error":{"message":"busy"}}"#;
    let i = Installation::start(BudgetLimits::default(), None, Answer::whole(529, headers, body)).await;
    let answer = i
        .door
        .call(
            &i.scope,
            request(Wire::AnthropicMessages, r#"{"model":"m","max_tokens":9}"#),
        )
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()),
        (529, "2")
    );
    assert_eq!(collect(answer).await.unwrap(), body);
    let used = i.used().await;
    assert_eq!((used.tokens, used.model_requests), (0, 1));
    let call = &events_of(&i).await[0];
    assert_eq!(
        call["outcome"],
        json!({"result": "failed", "error": "status 529: busy"})
    );
}

#[tokio::test]
async fn whoever_hangs_up_midway_pays_what_was_reserved() {
    let (pieces, answer) = Answer::channel();
    let i = Installation::start(BudgetLimits::default(), None, answer).await;
    let sent = r#"{"model":"scripted","stream":true,"max_tokens":500}"#;
    let mut answer = i.door.call(&i.scope, request(Wire::OpenaiChat, sent)).await.unwrap();
    pieces
        .unbounded_send(Ok(Bytes::from_static(
            b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n",
        )))
        .unwrap();
    answer.body.next().await.unwrap().unwrap();
    drop(answer);
    i.settled(1).await;
    assert_eq!(i.used().await.tokens, 500 + (sent.len() as u64).div_ceil(3));
    assert_eq!(events_of(&i).await[0]["details"]["estimated"], true);
}

#[tokio::test]
async fn whoever_hangs_up_after_the_last_word_pays_what_was_used() {
    let (pieces, answer) = Answer::channel();
    let i = Installation::start(BudgetLimits::default(), None, answer).await;
    let mut answer = i
        .door
        .call(
            &i.scope,
            request(Wire::OpenaiChat, r#"{"model":"scripted","stream":true}"#),
        )
        .await
        .unwrap();
    pieces.unbounded_send(Ok(chat(7, 5))).unwrap();
    answer.body.next().await.unwrap().unwrap();
    drop(answer);
    i.settled(1).await;
    assert_eq!(i.used().await.tokens, 12);
    assert_eq!(events_of(&i).await[0]["outcome"], json!({"result": "done"}));
}

#[tokio::test]
async fn a_provider_that_breaks_off_fails_the_call_and_passes_the_error_on() {
    let (pieces, answer) = Answer::channel();
    let i = Installation::start(BudgetLimits::default(), None, answer).await;
    let answer = i
        .door
        .call(
            &i.scope,
            request(Wire::OpenaiChat, r#"{"model":"scripted","max_tokens":50}"#),
        )
        .await
        .unwrap();
    pieces
        .unbounded_send(Err(support::broken(FailureClass::Unknown)))
        .unwrap();
    drop(pieces);
    assert!(collect(answer).await.is_err());
    assert_eq!(events_of(&i).await[0]["outcome"]["result"], "failed");
    assert!(i.used().await.tokens >= 50);
}

#[tokio::test]
async fn an_unreached_provider_costs_a_request_and_an_unsure_one_the_reservation() {
    for (class, tokens) in [(FailureClass::Transient, 0), (FailureClass::Unknown, 62)] {
        let i = Installation::start(BudgetLimits::default(), None, Answer::Fails(class)).await;
        let sent = r#"{"model":"scripted","max_tokens":50}"#;
        let refused = i
            .door
            .call(&i.scope, request(Wire::OpenaiChat, sent))
            .await
            .err()
            .unwrap();
        assert!(matches!(refused, DoorError::Model(ModelError { .. })));
        assert_eq!(refused.body(Wire::OpenaiChat).status, StatusCode::BAD_GATEWAY);
        let used = i.used().await;
        assert_eq!((used.tokens, used.model_requests), (tokens, 1), "{class:?}");
    }
}

#[tokio::test]
async fn no_rule_no_store_no_wire_no_sense_no_call() {
    let i = Installation::start(BudgetLimits::default(), Some("deny"), Answer::stream(&chat(1, 1))).await;
    let good = || request(Wire::OpenaiChat, r#"{"model":"m"}"#);
    let denied = i.door.call(&i.scope, good()).await.err().unwrap();
    let told = denied.body(Wire::OpenaiChat);
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&told.body).contains("permission_error"));
    let nonsense = i
        .door
        .call(&i.scope, request(Wire::OpenaiChat, "{"))
        .await
        .err()
        .unwrap();
    assert!(matches!(nonsense, DoorError::BadRequest(_)));
    let foreign = i
        .door
        .call(&i.scope, request(Wire::OpenaiResponses, r#"{"model":"m"}"#))
        .await
        .err()
        .unwrap();
    assert!(matches!(foreign, DoorError::Wire { .. }), "{foreign}");
    i.store.unavailable(true);
    let unrecorded = i.door.call(&i.scope, good()).await.err().unwrap();
    assert_eq!(
        unrecorded.body(Wire::OpenaiChat).status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(i.provider.requests().is_empty(), "nothing reached the provider");
}

#[tokio::test]
async fn a_held_model_call_happens_once_it_is_approved() {
    let i = Installation::start(BudgetLimits::default(), Some("ask"), Answer::stream(&chat(1, 1))).await;
    let (answer, ()) = tokio::join!(
        i.door.call(&i.scope, request(Wire::OpenaiChat, r#"{"model":"m"}"#)),
        async {
            assert!(i.provider.requests().is_empty());
            i.approve().await;
        }
    );
    collect(answer.unwrap()).await.unwrap();
    assert_eq!(i.provider.requests().len(), 1);
}
