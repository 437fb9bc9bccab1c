use std::time::Duration;

use stockade_domain::{ApprovalState, Decision, EventType, RuleVerdict};
use stockade_ports::Store;
use tokio::{io::AsyncWriteExt, time::sleep};

use crate::{
    rig::{Plan, Rig, is_shut, listen, talk},
    world::{echo_server, http_server},
};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n";

async fn rig() -> Rig {
    let plan = Plan::custom(&["a.example.com", "git.example.com:22"]);
    let rig = plan.rule("ask-first", "*.example.com", RuleVerdict::Ask).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    rig.host("git.example.com", "93.184.216.34", 22, echo_server().await);
    rig
}

#[tokio::test]
async fn an_approved_connection_goes_on_and_nothing_is_looked_up_before() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream.write_all(GET).await.unwrap();
    let approval = rig.pending().await;
    assert_eq!(
        (approval.rule.as_str(), approval.action.target.as_str()),
        ("ask-first", "a.example.com:80")
    );
    assert!(rig.names.asked().is_empty() && rig.internet.dialled().is_empty());
    rig.decide(Decision::Approve).await;
    assert!(listen(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(rig.allowed().await, ["connect a.example.com:80 ask-first"]);
}

#[tokio::test]
async fn waiting_for_a_person_is_not_idleness() {
    let mut plan = Plan::custom(&["a.example.com"]).rule("ask", "*", RuleVerdict::Ask);
    plan.config.idle_timeout = Duration::from_millis(150);
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream.write_all(GET).await.unwrap();
    rig.pending().await;
    sleep(Duration::from_millis(500)).await;
    rig.decide(Decision::Approve).await;
    assert!(listen(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_rejected_connection_is_closed() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream.write_all(GET).await.unwrap();
    rig.decide(Decision::Reject).await;
    let answer = listen(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("rejected by ada"),
        "{answer}"
    );
    let mut stream = rig.connect_to("git.example.com", 22).await;
    stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    rig.decide(Decision::Reject).await;
    assert!(is_shut(&mut stream).await);
    assert!(rig.internet.dialled().is_empty() && rig.names.asked().is_empty());
    assert_eq!(
        rig.denied().await,
        [
            "connect a.example.com:80 ask-first",
            "connect git.example.com:22 ask-first"
        ]
    );
}

#[tokio::test]
async fn a_client_that_tried_again_gets_the_answer_its_first_attempt_asked_for() {
    let rig = rig().await;
    for (name, port, bytes) in [
        ("git.example.com", 22, b"SSH-2.0-x\r\n".as_slice()),
        ("a.example.com", 80, GET),
    ] {
        let mut first = rig.connect_to(name, port).await;
        first.write_all(bytes).await.unwrap();
        rig.pending().await;
        drop(first);
        sleep(Duration::from_millis(50)).await;
        let mut second = rig.connect_to(name, port).await;
        second.write_all(bytes).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        rig.decide(Decision::Approve).await;
        assert!(
            !listen(&mut second).await.is_empty(),
            "{name}: the one question was answered for the second attempt"
        );
    }
    let asked = rig
        .events()
        .await
        .iter()
        .filter(|e| e.kind == EventType::ApprovalRequested)
        .count();
    assert_eq!(asked, 2, "one question per destination");
    assert_eq!(rig.internet.dialled().len(), 2);
}

#[tokio::test]
async fn an_address_refused_after_an_approval_is_refused_and_settled() {
    let rig = rig().await;
    rig.names.set("a.example.com", &["10.0.0.1"]);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream.write_all(GET).await.unwrap();
    rig.decide(Decision::Approve).await;
    assert!(listen(&mut stream).await.contains("stockade.address"));
    assert_eq!(rig.settled(1).await[0]["outcome"]["result"], "failed");
    assert_eq!(rig.denied().await, ["connect a.example.com:80 stockade.address"]);
    assert!(rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn only_so_many_connections_wait() {
    let mut plan = Plan::custom(&["a.example.com", "b.example.com"]).rule("ask", "*", RuleVerdict::Ask);
    plan.config.max_waiting = 1;
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut first = rig.connect_to("a.example.com", 80).await;
    first.write_all(GET).await.unwrap();
    rig.pending().await;
    let mut second = rig.connect_to("b.example.com", 80).await;
    let answer = talk(&mut second, b"GET / HTTP/1.1\r\nHost: b.example.com\r\n\r\n").await;
    assert!(answer.contains("stockade.limit"), "{answer}");
    rig.decide(Decision::Approve).await;
    assert!(
        listen(&mut first).await.starts_with("HTTP/1.1 200"),
        "the first still gets its answer"
    );
}

#[tokio::test]
async fn closing_ends_the_wait_and_leaves_the_question() {
    let mut rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream.write_all(GET).await.unwrap();
    let approval = rig.pending().await;
    rig.close().await;
    assert!(!listen(&mut stream).await.starts_with("HTTP/1.1 200"));
    let left = rig.store.approval(None, approval.id).await.unwrap();
    assert_eq!(
        left.state,
        ApprovalState::Pending,
        "the run's end decides about it, not the Guard"
    );
}
