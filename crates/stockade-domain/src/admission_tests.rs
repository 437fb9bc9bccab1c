use jiff::SignedDuration;
use uuid::Uuid;

use super::*;
use crate::{ApprovalDecision, BudgetLimits, Decision, RunState};

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn action(command: &str) -> Action {
    Action {
        kind: ActionKind::Tool,
        operation: "bash".into(),
        target: command.into(),
        args: json!({ "command": command }),
    }
}

fn request(verdict: Verdict) -> AdmitRequest {
    AdmitRequest {
        id: ActionId::from_uuid(uuid(1)),
        run: RunId::from_uuid(uuid(2)),
        fence: 1,
        action: action("make deploy"),
        policy: PolicyVerdict {
            verdict,
            rule: "r".into(),
            reason: "because".into(),
        },
        policy_version: Digest::of_bytes(b"policy"),
        reserve: Amounts::ZERO,
        approval_id: ApprovalId::from_uuid(uuid(3)),
        now: Timestamp::UNIX_EPOCH,
        trace: None,
    }
}

fn facts() -> AdmitFacts {
    AdmitFacts {
        machine: Machine {
            state: RunState::Running,
            attempt: 1,
            attached: true,
            ..Machine::new(1)
        },
        budget: Budget::new(BudgetLimits {
            model_requests: Some(1),
            ..BudgetLimits::default()
        }),
        policy_version: Digest::of_bytes(b"policy"),
        repeat_limit: 3,
        approval_timeout_seconds: 60,
        approvals: Vec::new(),
        history: Vec::new(),
    }
}

fn decided(decision: Decision, edited: Option<Value>) -> (AdmitRequest, AdmitFacts) {
    let request = request(Verdict::Hold);
    let held = decide(&request, &facts());
    let pending = held.approval.expect("a hold opens an approval");
    let answer = ApprovalDecision {
        decision,
        by: "ada".into(),
        reason: Some("checked".into()),
        edited_args: edited,
    };
    let approval = pending.decide(answer, Timestamp::UNIX_EPOCH).unwrap();
    let machine = held.step.unwrap().machine;
    (
        request,
        AdmitFacts {
            approvals: vec![approval],
            machine,
            ..facts()
        },
    )
}

#[test]
fn allow_is_allowed_and_deny_is_denied() {
    assert_eq!(
        decide(&request(Verdict::Allow), &facts()).record.verdict,
        Verdict::Allow
    );
    let denied = decide(&request(Verdict::Deny), &facts());
    assert_eq!(
        (denied.record.verdict, denied.events[0].kind),
        (Verdict::Deny, EventType::ActionDenied)
    );
}

#[test]
fn a_hold_opens_an_approval_and_moves_the_run_to_waiting() {
    let held = decide(&request(Verdict::Hold), &facts());
    assert_eq!(held.record.verdict, Verdict::Hold);
    assert_eq!(held.step.unwrap().machine.state, RunState::Waiting);
    let kinds: Vec<_> = held.events.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventType::ActionHeld, EventType::ApprovalRequested]);
}

#[test]
fn an_approval_admits_once_and_says_who() {
    let (request, mut facts) = decided(Decision::Approve, None);
    let admitted = decide(&request, &facts);
    assert_eq!(admitted.record.verdict, Verdict::Allow);
    assert!(admitted.record.reason.contains("ada"), "{}", admitted.record.reason);
    let used = admitted.approval.unwrap();
    assert!(used.used_at.is_some());
    // The store only offers unused approvals, so the next attempt asks anew.
    facts.approvals.clear();
    assert_eq!(decide(&request, &facts).record.verdict, Verdict::Hold);
}

#[test]
fn what_was_approved_is_what_executes() {
    let (request, facts) = decided(Decision::Approve, Some(json!({ "command": "make -n deploy" })));
    let admitted = decide(&request, &facts).record;
    assert_eq!(admitted.action.args["command"], "make -n deploy");
    assert_eq!(admitted.digest, admitted.action.digest());
}

#[test]
fn no_rejection_silence_or_late_yes_admits() {
    let (request, rejected) = decided(Decision::Reject, None);
    assert_eq!(decide(&request, &rejected).record.verdict, Verdict::Deny);
    let (mut late, approved) = decided(Decision::Approve, None);
    late.now = late.now.checked_add(SignedDuration::from_secs(60)).unwrap();
    assert_eq!(decide(&late, &approved).record.verdict, Verdict::Deny);
    let mut expired = approved;
    expired.approvals[0].state = ApprovalState::Expired;
    assert_eq!(decide(&request, &expired).record.verdict, Verdict::Deny);
}

#[test]
fn an_approval_under_another_policy_is_void() {
    let (request, mut facts) = decided(Decision::Approve, None);
    facts.approvals[0].policy_version = Digest::of_bytes(b"other");
    assert_eq!(decide(&request, &facts).record.verdict, Verdict::Hold);
    facts.policy_version = Digest::of_bytes(b"other");
    assert_eq!(decide(&request, &facts).record.verdict, Verdict::Deny);
}

#[test]
fn the_third_identical_call_is_stopped_and_a_person_can_let_it_pass() {
    let request = request(Verdict::Allow);
    let past = PastAction {
        digest: request.action.digest(),
        approved_repetition: false,
    };
    let mut facts = AdmitFacts {
        history: vec![past],
        ..facts()
    };
    assert_eq!(decide(&request, &facts).record.verdict, Verdict::Allow);
    facts.history.push(past);
    let stopped = decide(&request, &facts);
    assert_eq!(stopped.record.verdict, Verdict::Stop);
    assert_eq!(stopped.events[0].kind, EventType::ActionStopped);
    assert!(stopped.approval.unwrap().repetition);
    facts.history.push(PastAction {
        approved_repetition: true,
        ..past
    });
    assert_eq!(decide(&request, &facts).record.verdict, Verdict::Allow);
}

#[test]
fn a_budget_refusal_leaves_the_approval_unused() {
    let (mut request, mut facts) = decided(Decision::Approve, None);
    request.reserve = Amounts {
        model_requests: 2,
        ..Amounts::ZERO
    };
    let refused = decide(&request, &facts);
    assert_eq!(refused.record.verdict, Verdict::Deny);
    assert_eq!(refused.exhausted.unwrap().resource, "model_requests");
    assert!(refused.approval.is_none());
    facts.budget.limits.model_requests = Some(2);
    let admitted = decide(&request, &facts);
    assert_eq!(
        (admitted.record.verdict, admitted.budget.reserved.model_requests),
        (Verdict::Allow, 2)
    );
    let (settled, budget, event) = settle(
        &admitted.record,
        admitted.budget,
        Outcome::Done,
        request.reserve,
        Value::Null,
        request.now,
    );
    assert_eq!((budget.reserved.model_requests, budget.used.model_requests), (0, 2));
    assert!(!settled.in_flight());
    assert_eq!(event.kind, EventType::ActionSettled);
}

#[test]
fn a_run_that_is_not_working_admits_nothing() {
    for machine in [
        Machine::new(1),
        Machine {
            state: RunState::Completed,
            ..facts().machine
        },
        Machine {
            attached: false,
            state: RunState::Waiting,
            ..facts().machine
        },
    ] {
        assert_eq!(
            decide(&request(Verdict::Allow), &AdmitFacts { machine, ..facts() })
                .record
                .verdict,
            Verdict::Deny
        );
    }
}

#[test]
fn while_the_sandbox_is_prepared_a_credential_may_be_used_and_nothing_else() {
    let mut preparing = facts();
    preparing.machine.state = RunState::Provisioning;
    let credential = |verdict| AdmitRequest {
        action: Action {
            kind: ActionKind::Credential,
            ..action("fetch")
        },
        ..request(verdict)
    };
    let said = |request: &AdmitRequest, facts: &AdmitFacts| {
        let decision = decide(request, facts);
        (decision.record.verdict, decision.record.rule)
    };
    let state = (Verdict::Deny, "stockade.run_state".to_owned());
    assert_eq!(
        said(&credential(Verdict::Allow), &preparing),
        (Verdict::Allow, "r".to_owned())
    );
    assert_eq!(
        said(&credential(Verdict::Hold), &preparing),
        state,
        "nobody can be asked"
    );
    assert_eq!(said(&request(Verdict::Allow), &preparing), state, "a tool");
    preparing.machine.attached = false;
    assert_eq!(
        said(&credential(Verdict::Allow), &preparing),
        state,
        "nobody prepares it"
    );
}
