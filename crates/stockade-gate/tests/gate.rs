//! The gate against a simulated store: what passes, what waits, what is refused.

mod support;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use stockade_domain::{
    Amounts, ApprovalDecision, ApprovalState, Decision, EventType, Outcome, PolicyVerdict, RunState, TeamId, Verdict,
};
use stockade_gate::{Admission, Gate, Refusal, kind};
use stockade_ports::Store;
use support::{Installation, bash};

async fn decide(installation: &Installation, decision: Decision, edited_args: Option<Value>) {
    let pending = loop {
        let open = installation
            .store
            .approvals(None, Some(installation.run), Some(ApprovalState::Pending), 10)
            .await
            .unwrap();
        if let Some(approval) = open.first() {
            break approval.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let answer = ApprovalDecision {
        decision,
        by: "ada".into(),
        reason: None,
        edited_args,
    };
    installation
        .store
        .decide(TeamId::DEFAULT, pending.id, answer, installation.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_allowed_action_is_an_event_before_it_is_an_effect() {
    let i = Installation::start(&[]).await;
    let admitted = i
        .gate
        .pass::<kind::Tool>(&i.scope, bash("ls"), Amounts::ZERO)
        .await
        .unwrap();
    assert_eq!(i.count(EventType::ActionAdmitted).await, 1);
    assert_eq!(i.count(EventType::ActionSettled).await, 0);
    admitted
        .settle(Outcome::Done, Amounts::ZERO, Value::Null)
        .await
        .unwrap();
    assert_eq!(i.count(EventType::ActionSettled).await, 1);
}

#[tokio::test]
async fn what_a_caller_refuses_is_written_down_with_its_reason_whatever_the_policy_says() {
    let i = Installation::start(&[]).await;
    for verdict in [Verdict::Deny, Verdict::Allow, Verdict::Hold] {
        let seen = PolicyVerdict {
            verdict,
            rule: "guard.saw".to_owned(),
            reason: "the certificate has expired".to_owned(),
        };
        // The policy would let it through.
        let refusal = i.gate.refuse::<kind::Tool>(&i.scope, bash("ls"), seen).await;
        assert_eq!(refusal.rule(), "guard.saw");
        assert!(refusal.to_string().contains("has expired"), "{refusal}");
    }
    assert_eq!(i.count(EventType::ActionDenied).await, 3);
    assert_eq!(i.count(EventType::ActionAdmitted).await, 0);
}

#[tokio::test]
async fn a_held_action_waits_and_passes_once_approved() {
    let i = Installation::start(&[("deploy", "ask")]).await;
    let (passed, ()) = tokio::join!(
        i.gate.pass::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO),
        decide(&i, Decision::Approve, None)
    );
    let admitted = passed.unwrap();
    assert!(admitted.why().1.contains("ada"));
    assert_eq!(i.state().await, RunState::Running);
    admitted
        .settle(Outcome::Done, Amounts::ZERO, Value::Null)
        .await
        .unwrap();
    // Used once: the same action asks again.
    let again = i
        .gate
        .admit::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO)
        .await
        .unwrap();
    assert!(matches!(again, Admission::Held(_)));
}

#[tokio::test]
async fn edited_arguments_are_what_executes() {
    let i = Installation::start(&[("deploy", "ask")]).await;
    let (passed, ()) = tokio::join!(
        i.gate.pass::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO),
        decide(&i, Decision::Approve, Some(json!({ "command": "deploy --dry-run" })))
    );
    assert_eq!(passed.unwrap().action().args["command"], "deploy --dry-run");
}

#[tokio::test]
async fn a_rejection_and_silence_are_refusals() {
    let i = Installation::start(&[("deploy", "ask")]).await;
    let (refused, ()) = tokio::join!(
        i.gate.pass::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO),
        decide(&i, Decision::Reject, None)
    );
    assert!(matches!(refused, Err(Refusal::Denied { record }) if record.reason.contains("rejected by ada")));

    let held = i
        .gate
        .admit::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO)
        .await
        .unwrap();
    assert!(matches!(held, Admission::Held(_)));
    i.clock.advance_ms(3_600_000);
    let refused = i.gate.pass::<kind::Tool>(&i.scope, bash("deploy"), Amounts::ZERO).await;
    assert!(matches!(refused, Err(Refusal::Denied { record }) if record.reason.contains("nobody answered")));
}

#[tokio::test]
async fn a_store_that_does_not_answer_denies() {
    let i = Installation::start(&[]).await;
    i.store.unavailable(true);
    let refused = i.gate.pass::<kind::Tool>(&i.scope, bash("ls"), Amounts::ZERO).await;
    assert!(matches!(refused, Err(Refusal::Unrecorded(_))));
    i.store.unavailable(false);
    assert!(
        i.gate
            .pass::<kind::Tool>(&i.scope, bash("ls"), Amounts::ZERO)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_stale_lease_admits_nothing() {
    let i = Installation::start(&[]).await;
    let stale = i.scope_with_fence(i.scope.lease().fence - 1).await;
    assert!(matches!(
        i.gate.pass::<kind::Tool>(&stale, bash("ls"), Amounts::ZERO).await,
        Err(Refusal::Unrecorded(_))
    ));
    assert!(
        i.gate
            .pass::<kind::Tool>(&i.scope, bash("ls"), Amounts::ZERO)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_abandoned_model_call_counts_as_spent_and_unknown() {
    let i = Installation::start(&[]).await;
    let reserve = Amounts {
        tokens: 100,
        model_requests: 1,
        ..Amounts::ZERO
    };
    let admitted = i
        .gate
        .pass::<kind::Model>(&i.scope, support::model_call(), reserve)
        .await
        .unwrap();
    drop(admitted);
    while i.count(EventType::ModelCall).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let run = i.store.run(None, i.run).await.unwrap();
    assert_eq!((run.budget.used.tokens, run.budget.reserved.tokens), (100, 0));
    assert_eq!(i.store.actions(i.run).await.unwrap()[0].outcome, Some(Outcome::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_concurrent_actions_exactly_the_budget_is_admitted() {
    let i = Arc::new(Installation::start(&[]).await);
    let one = Amounts {
        model_requests: 1,
        ..Amounts::ZERO
    };
    let asks = (0..1000).map(|_| {
        let i = Arc::clone(&i);
        tokio::spawn(async move {
            match i.gate.pass::<kind::Model>(&i.scope, support::model_call(), one).await {
                Ok(admitted) => admitted.settle(Outcome::Done, one, Value::Null).await.is_ok(),
                Err(Refusal::Exhausted { .. }) => false,
                Err(other) => panic!("{other}"),
            }
        })
    });
    let mut admitted = 0;
    for ask in asks.collect::<Vec<_>>() {
        admitted += u32::from(ask.await.unwrap());
    }
    assert_eq!(admitted, support::MODEL_REQUESTS);
    let refused = i
        .store
        .actions(i.run)
        .await
        .unwrap()
        .iter()
        .filter(|a| a.verdict == Verdict::Deny)
        .count();
    assert_eq!(refused, 900);
}

#[tokio::test]
async fn turns_end_at_their_limit() {
    let i = Installation::start(&[]).await;
    for turn in 1..=support::TURNS {
        assert_eq!(i.gate.begin_turn(&i.scope).await.unwrap(), turn);
    }
    assert!(matches!(
        i.gate.begin_turn(&i.scope).await,
        Err(Refusal::Exhausted { .. })
    ));
    let _: &Gate = &i.gate;
}
