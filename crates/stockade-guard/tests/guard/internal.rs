use bytes::Bytes;
use stockade_domain::NetworkLevel;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use crate::rig::{Plan, SOON, is_shut, talk};

const LLM: &str = "llm.stockade.internal";

#[tokio::test]
async fn an_internal_name_is_answered_under_none_with_the_runs_identity() {
    let rig = Plan::level(NetworkLevel::None, &[])
        .rule("no", "*", stockade_domain::RuleVerdict::Deny)
        .start()
        .await;
    let mut stream = rig.connect_to(LLM, 80).await;
    let request = format!("POST /v1/messages?beta=true HTTP/1.1\r\nHost: {LLM}\r\nContent-Length: 4\r\n\r\nping");
    let answer = talk(&mut stream, request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("ping"),
        "{answer}"
    );
    let calls = rig.gateway.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].0.run, calls[0].1.as_str(), calls[0].2.as_str()),
        (rig.run, LLM, "/v1/messages?beta=true")
    );
    assert!(
        rig.allowed().await.is_empty() && rig.denied().await.is_empty(),
        "no egress"
    );
    assert!(rig.internet.dialled().is_empty() && rig.names.asked().is_empty());
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece() {
    let rig = Plan::level(NetworkLevel::None, &[]).start().await;
    let (feed, pieces) = mpsc::channel(1);
    *rig.gateway.feed.lock().unwrap() = Some(pieces);
    let mut stream = rig.connect_to(LLM, 80).await;
    let request = format!("GET /stream HTTP/1.1\r\nHost: {LLM}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    for n in 0..3 {
        let piece = format!("data: {n}\n\n");
        feed.send(Bytes::from(piece.clone())).await.unwrap();
        // The stream is still open and the piece is already here.
        timeout(SOON, async {
            while !String::from_utf8_lossy(&heard).contains(&piece) {
                assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
            }
        })
        .await
        .expect("the piece before the next one is made");
    }
    drop(feed);
    timeout(SOON, async {
        while !heard.ends_with(b"\r\n0\r\n\r\n") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "the end of the chunks");
        }
    })
    .await
    .expect("the end of the answer");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_call() {
    let rig = Plan::level(NetworkLevel::None, &[]).start().await;
    let (feed, pieces) = mpsc::channel(1);
    *rig.gateway.feed.lock().unwrap() = Some(pieces);
    let mut stream = rig.connect_to(LLM, 80).await;
    stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: {LLM}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    feed.send(Bytes::from_static(b"x")).await.unwrap();
    stream.read_u8().await.unwrap();
    drop(stream);
    timeout(SOON, feed.closed())
        .await
        .expect("the gateway's stream is dropped");
}

#[tokio::test]
async fn other_hosts_and_ports_of_an_internal_name_are_refused() {
    let rig = Plan::level(NetworkLevel::None, &[]).start().await;
    let mut stream = rig.connect_to(LLM, 80).await;
    let answer = talk(&mut stream, b"GET / HTTP/1.1\r\nHost: tools.stockade.internal\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 421") && answer.contains("stockade.name_mismatch"),
        "{answer}"
    );
    for port in [443, 8080] {
        assert!(is_shut(&mut rig.connect_to(LLM, port).await).await);
    }
    assert!(rig.gateway.calls.lock().unwrap().is_empty());
    assert_eq!(
        rig.denied().await,
        [
            "connect llm.stockade.internal:80 stockade.name_mismatch",
            "connect llm.stockade.internal:443 stockade.internal_port",
            "connect llm.stockade.internal:8080 stockade.internal_port"
        ]
    );
}
