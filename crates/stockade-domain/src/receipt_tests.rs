use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    AgentKind, AgentSpec, Budget, Environment, Event, EventType, Limits, LimitsPatch, Machine, NetworkLevel, NewEvent,
    RunId, RunSpec, RunState, SnapshotPlan, TaskId, TeamId, Timestamp, event::chain_head,
};

fn run() -> Run {
    let agent = AgentSpec {
        name: "builtin".into(),
        description: String::new(),
        kind: AgentKind::Builtin { tools: Vec::new() },
        model: None,
        instructions: None,
        rules: Vec::new(),
        limits: LimitsPatch::default(),
    };
    Run {
        id: RunId::from_uuid(Uuid::from_u128(1)),
        task: TaskId::from_uuid(Uuid::from_u128(2)),
        team: TeamId::DEFAULT,
        spec: RunSpec {
            prompt: "fix it".into(),
            repo: None,
            agent,
            environment: Environment::named("default", NetworkLevel::Trusted),
            model: "m".into(),
            backend: "native".into(),
            snapshot: SnapshotPlan::default(),
            git_host: None,
            publish: None,
            limits: Limits::default(),
            policy_version: Digest::ZERO,
        },
        machine: Machine {
            state: RunState::Completed,
            ..Machine::new(1)
        },
        budget: Budget::default(),
        result: None,
        failure: None,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        ended_at: None,
        last_seq: 2,
        chain_head: Digest::of_bytes(b"head"),
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

#[test]
fn a_receipt_verifies_and_fails_on_any_changed_byte() {
    let file = sign(
        &Statement::new(run(), Vec::new(), Vec::new(), Evidence::default()),
        &key(),
    );
    let trusted = key().verifying_key();
    assert_eq!(verify(&file, &trusted).unwrap().predicate.run.spec.prompt, "fix it");
    for at in 0..file.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            assert!(
                verify(&changed, &trusted).is_err(),
                "byte {at} ^ {flip:#x} went unnoticed"
            );
        }
    }
    for changed in [
        &file[..file.len() - 1],
        &[&file[..], b"\n"].concat(),
        &[b" ", &file[..]].concat(),
    ] {
        assert!(verify(changed, &trusted).is_err());
    }
}

#[test]
fn another_key_is_named() {
    let file = sign(
        &Statement::new(run(), Vec::new(), Vec::new(), Evidence::default()),
        &SigningKey::from_bytes(&[8; 32]),
    );
    assert!(matches!(
        verify(&file, &key().verifying_key()),
        Err(InvalidReceipt::WrongKey { .. })
    ));
}

#[test]
fn the_chain_notices_a_changed_missing_or_moved_event() {
    let place = |seq: u64, text: &str| {
        let new = NewEvent::new(EventType::MessageAgent, json!({ "text": text }));
        Event::place(
            new,
            RunId::from_uuid(Uuid::from_u128(1)),
            seq,
            Timestamp::UNIX_EPOCH,
            None,
        )
    };
    let events = [place(1, "a"), place(2, "b"), place(3, "c")];
    let head = chain_head(&events).unwrap();
    assert_ne!(
        chain_head(&[place(1, "a"), place(2, "B"), place(3, "c")]).unwrap(),
        head
    );
    assert_ne!(chain_head(&events[..2]).unwrap(), head);
    assert!(chain_head([&events[0], &events[2]]).is_err());
    assert!(chain_head([&events[1], &events[0]]).is_err());
    assert_eq!(chain_head(&events).unwrap(), head);
}

#[test]
fn an_address_exception_stands_with_its_reason_and_its_use() {
    let mut run = run();
    let exception = |cidr: &str, reason: &str| AddressException {
        cidr: cidr.into(),
        reason: reason.into(),
    };
    run.spec.environment.address_exceptions = vec![exception("10.0.0.0/8", "mirror"), exception("fd00::/16", "unused")];
    let settled = |details: serde_json::Value| {
        let new = NewEvent::new(EventType::ActionSettled, json!({ "details": details }));
        Event::place(
            new,
            RunId::from_uuid(Uuid::from_u128(1)),
            1,
            Timestamp::UNIX_EPOCH,
            None,
        )
    };
    let mut evidence = Evidence::default();
    evidence.take(settled(
        json!({ "address": "10.1.2.3:443", "address_exception": "10.0.0.0/8: mirror" }),
    ));
    evidence.take(settled(json!({ "address": "93.184.216.34:443" })));
    let statement = Statement::new(run, Vec::new(), Vec::new(), evidence);
    let used: Vec<_> = statement
        .predicate
        .address_exceptions
        .iter()
        .map(|used| (used.cidr.as_str(), used.reason.as_str(), used.connections))
        .collect();
    assert_eq!(used, [("10.0.0.0/8", "mirror", 1), ("fd00::/16", "unused", 0)]);
}

#[test]
fn destinations_add_up_what_they_carried_and_what_was_only_counted() {
    let record = |n: u128, target: &str, verdict: Verdict, args: serde_json::Value| ActionRecord {
        id: crate::ActionId::from_uuid(Uuid::from_u128(n)),
        run: RunId::from_uuid(Uuid::from_u128(1)),
        attempt: 1,
        action: crate::Action {
            kind: crate::ActionKind::Egress,
            operation: "connect".into(),
            target: target.into(),
            args,
        },
        digest: Digest::ZERO,
        verdict,
        rule: "r".into(),
        reason: String::new(),
        approval: None,
        reserved: Amounts::ZERO,
        outcome: None,
        spent: Amounts::ZERO,
        asked_at: Timestamp::UNIX_EPOCH,
        settled_at: None,
    };
    let actions = vec![
        record(1, "a.example.com:443", Verdict::Allow, json!({})),
        record(2, "evil.example:443", Verdict::Deny, json!({})),
        record(3, "a.example.com:443", Verdict::Allow, json!({})),
        record(
            4,
            "evil.example:443",
            Verdict::Deny,
            json!({ "attempts": 57, "counted": 56 }),
        ),
    ];
    let settled = |n: u128, up: u64, blind: u64| {
        let id = crate::ActionId::from_uuid(Uuid::from_u128(n));
        let details = json!({ "bytes_up": up, "bytes_down": 1, "blind_up": blind, "blind_down": 0, "duration_ms": 7 });
        let new = NewEvent::new(EventType::ActionSettled, json!({ "action": id, "details": details }));
        Event::place(
            new,
            RunId::from_uuid(Uuid::from_u128(1)),
            1,
            Timestamp::UNIX_EPOCH,
            None,
        )
    };
    let mut evidence = Evidence::default();
    evidence.take(settled(1, 10, 10));
    evidence.take(settled(3, 5, 0));
    let statement = Statement::new(run(), actions, Vec::new(), evidence);
    let [reached, refused] = statement.predicate.destinations.as_slice() else {
        panic!("{:?}", statement.predicate.destinations);
    };
    let expected = Traffic {
        connections: 2,
        requests: 0,
        bytes_up: 15,
        bytes_down: 2,
        blind_bytes: 10,
        duration_ms: 14,
    };
    assert_eq!((reached.count, reached.traffic), (2, expected));
    assert_eq!((refused.count, refused.traffic), (57, Traffic::default()));
}
