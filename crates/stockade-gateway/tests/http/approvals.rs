//! Approvals: answered once, by somebody with a name.

use serde_json::json;
use stockade_api::{ProblemCode, v1::DecideApproval};
use stockade_domain::{ActionKind, ApprovalState, EventType, RunState};
use stockade_ports::{Store, Topic};

use crate::{harness::Harness, raw::Call};

#[tokio::test]
async fn a_decision_is_made_in_the_name_of_the_token_and_wakes_the_run() {
    let harness = Harness::start().await;
    let approval = harness.pending(ActionKind::Tool).await;
    let client = harness.client();
    let listed = client
        .approvals(Some(approval.run), Some(ApprovalState::Pending), None)
        .await
        .unwrap();
    assert_eq!(listed.items, vec![approval.clone()]);
    let woken = harness.engine.woken().len();
    let decided = client
        .decide(
            approval.id,
            &DecideApproval {
                reason: Some("looks right".to_owned()),
                ..DecideApproval::approve()
            },
        )
        .await
        .unwrap();
    assert_eq!(decided.state, ApprovalState::Approved);
    assert_eq!(
        (decided.decided_by.as_deref(), decided.decision_reason.as_deref()),
        (Some("alice"), Some("looks right"))
    );
    assert_eq!(decided.digest, approval.digest);
    assert_eq!(client.approval(approval.id).await.unwrap(), decided);
    assert_eq!(client.run(approval.run).await.unwrap().state, RunState::Running);
    assert_eq!(harness.engine.woken()[woken..], [approval.run]);
    assert_eq!(harness.bus.said().last(), Some(&Topic::Run(approval.run)));
    let pending = client
        .approvals(None, Some(ApprovalState::Pending), None)
        .await
        .unwrap();
    assert!(pending.items.is_empty());
}

#[tokio::test]
async fn of_many_concurrent_decisions_one_counts() {
    let harness = Harness::start().await;
    for _ in 0..5 {
        let approval = harness.pending(ActionKind::Tool).await;
        let path = format!("/v1/approvals/{}/decision", approval.id);
        let answers = futures::future::join_all((0..8).map(|n| {
            let decision = if n % 2 == 0 { "approve" } else { "reject" };
            let call = Call::post(&path, json!({ "decision": decision })).token(&harness.token);
            call.send(harness.address)
        }))
        .await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        let lost = answers
            .iter()
            .filter(|answer| (answer.status, answer.code().as_str()) == (409, "approval_closed"));
        assert_eq!((won.len(), lost.count()), (1, 7));
        let stored = harness.store.approval(None, approval.id).await.unwrap();
        assert_eq!(won[0].json()["state"], stored.state.as_str());
        let events = harness.store.events(approval.run, 0, 100).await.unwrap();
        let decided = events.iter().filter(|event| event.kind == EventType::ApprovalDecided);
        assert_eq!(decided.count(), 1);
    }
}

#[tokio::test]
async fn a_late_or_odd_decision_is_refused() {
    let harness = Harness::start().await;
    let approval = harness.pending(ActionKind::Egress).await;
    let path = format!("/v1/approvals/{}/decision", approval.id);
    for (body, status, code) in [
        (json!({ "decision": "maybe" }), 422, "invalid_body"),
        (json!({ "decision": "approve", "by": "bob" }), 422, "invalid_body"),
        (json!({ "decision": "reject", "edited_args": {} }), 422, "not_editable"),
        (
            json!({ "decision": "approve", "edited_args": { "host": "x" } }),
            422,
            "not_editable",
        ),
        (json!({ "decision": "approve", "reason": " " }), 422, "empty_text"),
    ] {
        let answer = harness.post(&path, body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    assert_eq!(harness.store.approval(None, approval.id).await.unwrap(), approval);
    harness.clock.advance_ms(3_600_000);
    let late = harness.client().decide(approval.id, &DecideApproval::approve()).await;
    assert_eq!(late.unwrap_err().code(), Some(ProblemCode::ApprovalClosed));
}

#[tokio::test]
async fn edited_arguments_are_kept_with_the_approval() {
    let harness = Harness::start().await;
    let approval = harness.pending(ActionKind::Tool).await;
    let decision = DecideApproval {
        edited_args: Some(json!({ "command": "git push --dry-run" })),
        ..DecideApproval::approve()
    };
    let decided = harness.client().decide(approval.id, &decision).await.unwrap();
    assert_eq!(decided.edited.unwrap().args, json!({ "command": "git push --dry-run" }));
    assert_eq!(decided.action, approval.action);
}
