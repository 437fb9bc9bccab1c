//! Runs: listing, cancelling, speaking, and what they leave behind.

use serde_json::json;
use stockade_api::{
    ListRuns, ProblemCode,
    v1::{CreateTask, SendMessage},
};
use stockade_domain::{EventType, RunState};
use stockade_ports::Store;

use crate::{harness::Harness, raw::Call};

#[tokio::test]
async fn lists_can_be_narrowed_to_states() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    harness.queued().await;
    let client = harness.client();
    let list = async |states: &[RunState]| {
        let wanted = ListRuns {
            states: states.to_vec(),
            ..ListRuns::default()
        };
        client.runs(&wanted).await.unwrap().items.len()
    };
    assert_eq!(list(&[]).await, 2);
    assert_eq!(list(&[RunState::Running]).await, 1);
    assert_eq!(list(&[RunState::Running, RunState::Queued]).await, 2);
    assert_eq!(list(&[RunState::Failed]).await, 0);
    harness.fail(run.id, lease).await;
    assert_eq!(list(&[RunState::Failed]).await, 1);
    let summary = client.runs(&ListRuns::default()).await.unwrap().items.pop().unwrap();
    assert_eq!(
        (summary.title.as_str(), summary.failure.as_deref()),
        ("do it", Some("test"))
    );
    assert_eq!(
        harness.get("/v1/runs?state=running,flying").await.code(),
        "invalid_query"
    );
}

#[tokio::test]
async fn cancelling_ends_a_queued_run_at_once_and_asks_a_working_one() {
    let harness = Harness::start().await;
    let client = harness.client();
    let (_, queued) = harness.queued().await;
    let path = format!("/v1/runs/{queued}/cancel");
    let answer = harness.post(&path, json!({ "reason": "changed my mind" })).await;
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")));
    let last = harness.store.events(queued, 1, 10).await.unwrap().pop().unwrap();
    assert_eq!(last.kind, EventType::RunCancelled);
    assert_eq!(last.data, json!({ "by": "alice", "reason": "changed my mind" }));
    let answer = harness.post(&path, json!({})).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "run_ended"));
    assert_eq!(answer.json()["state"], "cancelled");

    let (working, _) = harness.running().await;
    let woken = harness.engine.woken().len();
    let answer = harness
        .call(Call::new("POST", &format!("/v1/runs/{}/cancel", working.id)))
        .await;
    assert_eq!((answer.status, &answer.json()["cancelling"]), (202, &json!(true)));
    assert_eq!(harness.engine.woken()[woken..], [working.id]);
    assert_eq!(client.run(working.id).await.unwrap().state, RunState::Running);
}

#[tokio::test]
async fn messages_reach_a_live_run_in_the_name_of_the_token() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    let message = SendMessage {
        text: "look at tests/ too".to_owned(),
        steer: true,
    };
    let kept = harness.client().send_message(run.id, &message).await.unwrap();
    assert_eq!((kept.seq, kept.by.as_str(), kept.steer), (1, "alice", true));
    let stored = harness.store.messages(run.id, 0).await.unwrap();
    assert_eq!((stored.len(), stored[0].text.as_str()), (1, "look at tests/ too"));
    assert_eq!(harness.engine.woken().last(), Some(&run.id));
    let path = format!("/v1/runs/{}/messages", run.id);
    assert_eq!(harness.post(&path, json!({ "text": " " })).await.code(), "empty_text");
    // A key that could not be honoured is refused instead of ignored.
    let call = Call::post(&path, json!({ "text": "x" })).header("Idempotency-Key", "k");
    assert_eq!(harness.call(call).await.code(), "invalid_header");
    assert_eq!(harness.store.messages(run.id, 0).await.unwrap().len(), 1);
    harness.fail(run.id, lease).await;
    let late = harness.client().send_message(run.id, &message).await.unwrap_err();
    assert_eq!(late.code(), Some(ProblemCode::RunEnded));
}

#[tokio::test]
async fn artifacts_come_byte_for_byte_or_not_at_all() {
    let harness = Harness::start().await;
    let (run, _) = harness.running().await;
    let path = format!("/v1/runs/{}", run.id);
    for name in ["diff", "receipt", "artifacts/bundle", "artifacts/patch"] {
        let answer = harness.get(&format!("{path}/{name}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_artifact"), "{name}");
        assert_eq!(answer.json()["state"], "running");
    }
    assert!(harness.client().artifacts(run.id).await.unwrap().items.is_empty());
    let receipt = b"{\"payload\" :\n \"\xc3\xbc\"}  ".as_slice();
    for (name, content) in [
        ("patch", b"diff --git\n".as_slice()),
        ("receipt", receipt),
        ("bundle", &[0, 255]),
    ] {
        let content = bytes::Bytes::copy_from_slice(content);
        harness.store.put_artifact(run.id, name, content).await.unwrap();
    }
    let answer = harness.get(&format!("{path}/receipt")).await;
    assert_eq!(answer.header("content-type"), "application/vnd.dsse+json");
    assert_eq!(answer.body, receipt);
    let answer = harness.get(&format!("{path}/diff")).await;
    assert_eq!(answer.header("content-type"), "text/x-patch");
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"change.patch\""
    );
    assert_eq!(harness.client().diff(run.id).await.unwrap(), b"diff --git\n".as_slice());
    assert_eq!(
        harness.client().artifact(run.id, "bundle").await.unwrap(),
        [0, 255].as_slice()
    );
    let listed = harness.client().artifacts(run.id).await.unwrap().items;
    let sizes: Vec<_> = listed.iter().map(|a| (a.name.as_str(), a.size)).collect();
    assert_eq!(sizes, [("patch", 11), ("bundle", 2), ("receipt", receipt.len() as u64)]);
    for odd in ["..%2Fpatch", "x", "patch%00", "%FF"] {
        let answer = harness.get(&format!("{path}/artifacts/{odd}")).await;
        assert_eq!(answer.status, 404, "{odd}: {}", answer.text());
    }
}

#[tokio::test]
async fn ids_that_cannot_be_are_not_found() {
    let harness = Harness::start().await;
    let (task, _) = harness.queued().await;
    for path in [
        "/v1/runs/x".to_owned(),
        "/v1/runs/run_1".to_owned(),
        format!("/v1/runs/{task}"),
        "/v1/runs/%FF".to_owned(),
        "/v1/tasks/task_00000000000000000000000000000000".to_owned(),
        "/v1/approvals/apr_00000000000000000000000000000000".to_owned(),
    ] {
        let answer = harness.get(&path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "not_found"),
            "{path}: {}",
            answer.text()
        );
    }
    // The control.
    assert_eq!(harness.get(&format!("/v1/tasks/{task}")).await.status, 200);
}

#[tokio::test]
async fn a_prompt_with_every_kind_of_character_survives() {
    let harness = Harness::start().await;
    let prompt = "a \"quote\" \\ \u{0} \u{1f600} \u{202e} ü\n\t";
    let created = harness
        .client()
        .create_task(&CreateTask::new(prompt), None)
        .await
        .unwrap();
    assert_eq!(harness.client().task(created.task.id).await.unwrap().prompt, prompt);
}
