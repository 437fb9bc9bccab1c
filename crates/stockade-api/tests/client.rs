//! The client against a server that plays a script: what a gateway never does, a broken or
//! foreign one might.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use stockade_api::{Client, ClientError, EventStream, ProblemCode, Reconnect};
use stockade_domain::{EventType, RunId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const BRISK: Reconnect = Reconnect {
    attempts: 3,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
    silence: Duration::from_millis(200),
};

fn run() -> RunId {
    "run_0000000000000000000000000000000a".parse().unwrap()
}

/// A server that gives one scripted answer per connection and writes down what was asked.
struct Script {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// `hold`: whether connections stay open after the answer.
    async fn play(answers: Vec<String>, hold: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let book = asked.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                book.lock()
                    .unwrap()
                    .push(String::from_utf8(head).unwrap().to_ascii_lowercase());
                socket.write_all(answer.as_bytes()).await.unwrap();
                if hold {
                    held.push(socket);
                }
            }
            if hold {
                std::future::pending::<()>().await;
            }
        });
        Self { address, asked }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), "stk_secret").unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn stream(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
}

fn event_of(run: RunId, seq: u64, kind: &str) -> String {
    let data = format!(
        r#"{{"id":"{run}:{seq}","seq":{seq},"run":"{run}","time":"2026-01-01T00:00:00Z","type":"{kind}","trace":null,"data":{{}}}}"#
    );
    format!("id: {run}:{seq}\nevent: {kind}\ndata: {data}\n\n")
}

fn event(seq: u64) -> String {
    event_of(run(), seq, "message.delta")
}

fn last(seq: u64) -> String {
    event_of(run(), seq, "run.completed")
}

/// The places told, and the error that ended the stream, if one did.
async fn told(stream: EventStream) -> (Vec<u64>, Option<ClientError>) {
    let (mut places, mut end) = (Vec::new(), None);
    let all = tokio::time::timeout(Duration::from_secs(10), stream.collect::<Vec<_>>());
    for item in all.await.expect("the stream ends") {
        assert!(end.is_none(), "something came after an error");
        match item {
            Ok(event) => places.push(event.seq),
            Err(error) => end = Some(error),
        }
    }
    (places, end)
}

#[tokio::test]
async fn broken_connections_are_resumed_where_they_broke_and_repeats_are_dropped() {
    let half = &event(3)[..40];
    let script = Script::play(
        vec![
            stream(&format!(": hi\n\n{}{}{half}", event(1), event(2))),
            stream(""),
            stream(&format!("{}{}{}", event(2), event(3), event(3))),
            stream(&format!("{}{}", event(4), last(5))),
        ],
        false,
    )
    .await;
    let (places, end) = told(script.client().events_with(run(), 0, BRISK)).await;
    assert_eq!((places, end.is_none()), (vec![1, 2, 3, 4, 5], true));
    let resumed: Vec<_> = script
        .asked()
        .iter()
        .map(|head| {
            let line = head.lines().find(|line| line.starts_with("last-event-id"));
            line.map(|line| line.rsplit(':').next().unwrap().to_owned())
        })
        .collect();
    let place = |seq: &str| Some(seq.to_owned());
    assert_eq!(resumed, [None, place("2"), place("2"), place("3")]);
}

#[tokio::test]
async fn an_announced_gap_is_told_and_a_hole_is_an_error() {
    let gap = event_of(run(), 7, "stream.gap");
    let script = Script::play(vec![stream(&format!("{}{gap}{}", event(1), last(8)))], false).await;
    let mut events = script.client().events_with(run(), 0, BRISK);
    let mut kinds = Vec::new();
    while let Some(event) = events.next().await {
        kinds.push(event.unwrap().kind);
    }
    assert_eq!(
        kinds,
        [EventType::MessageDelta, EventType::StreamGap, EventType::RunCompleted]
    );

    let script = Script::play(vec![stream(&format!("{}{}", event(1), event(3)))], false).await;
    let (places, end) = told(script.client().events_with(run(), 0, BRISK)).await;
    assert_eq!(places, [1]);
    assert!(matches!(end, Some(ClientError::Protocol(_))), "{end:?}");
}

#[tokio::test]
async fn foreign_events_and_nonsense_are_errors() {
    let other: RunId = "run_0000000000000000000000000000000b".parse().unwrap();
    for wrong in [
        stream(&event_of(other, 1, "message.delta")),
        stream("data: {\n\n"),
        stream("data: \u{0}\n\n"),
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
    ] {
        let script = Script::play(vec![wrong.clone()], false).await;
        let (places, end) = told(script.client().events_with(run(), 0, BRISK)).await;
        assert!(
            places.is_empty() && matches!(end, Some(ClientError::Protocol(_))),
            "{wrong}: {end:?}"
        );
    }
}

#[tokio::test]
async fn silence_is_a_broken_connection_and_patience_ends() {
    let script = Script::play(vec![stream(&event(1)), stream(""), stream(""), stream("")], true).await;
    let (places, end) = told(script.client().events_with(run(), 0, BRISK)).await;
    assert_eq!(places, [1]);
    let Some(ClientError::Unreachable { cause, .. }) = end else {
        panic!("{end:?}")
    };
    assert!(cause.contains("silent"), "{cause}");
    assert_eq!(script.asked().len(), 4);
}

#[tokio::test]
async fn refusals_end_a_stream_at_once_and_trouble_is_tried_again() {
    let problem = |status: &str, code: &str| {
        let body = format!(
            r#"{{"type":"https://stockade.dev/problems/{code}","title":"t","status":{},"detail":"d"}}"#,
            &status[..3]
        );
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let script = Script::play(vec![problem("401 Unauthorized", "unauthorized")], false).await;
    let (_, end) = told(script.client().events_with(run(), 0, BRISK)).await;
    assert_eq!(end.unwrap().code(), Some(ProblemCode::Unauthorized));

    let busy = problem("503 Service Unavailable", "store_unavailable");
    let script = Script::play(vec![busy.clone(), busy, stream(&last(1))], false).await;
    let (places, end) = told(script.client().events_with(run(), 0, BRISK)).await;
    assert_eq!((places, end.is_none()), (vec![1], true));
}

#[tokio::test]
async fn a_server_that_is_no_gateway_is_said_to_be_none() {
    let page = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<oh/>".to_owned();
    let script = Script::play(vec![page], false).await;
    let error = script.client().tasks(None, None).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Protocol(text) if text.contains("502")),
        "{error}"
    );
}

#[tokio::test]
async fn the_token_follows_no_redirect() {
    let elsewhere = Script::play(vec![stream("")], false).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.address
    );
    let script = Script::play(vec![redirect], false).await;
    assert!(matches!(script.client().about().await, Err(ClientError::Protocol(_))));
    assert!(script.asked()[0].contains("authorization: bearer stk_secret"));
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_says_where() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{gone}"), "stk_x").unwrap();
    let error = client.about().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(
        text.contains(&gone.to_string()) && text.contains("refused") && !text.contains("stk_x"),
        "{text}"
    );
}
