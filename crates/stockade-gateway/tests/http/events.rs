//! Event streams: nothing missing, nothing twice, whatever breaks.

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use serde_json::json;
use stockade_api::{Client, ClientError, Reconnect};
use stockade_domain::{Event, EventType, NewEvent, RunId};
use stockade_gateway::HttpLimits;
use stockade_ports::{Bus, Clock, Lease, Store, Topic};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    harness::{Harness, catalog, told},
    raw::{Call, PATIENCE},
};

const BRISK: Reconnect = Reconnect {
    attempts: 12,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(20),
    silence: Duration::from_secs(5),
};

async fn all(stream: stockade_api::EventStream) -> Vec<Event> {
    let events = stream.map(|event| event.unwrap()).collect::<Vec<_>>();
    timeout(Duration::from_secs(20), events).await.expect("the stream ends")
}

/// The events are exactly those of the store after a place.
async fn assert_whole(harness: &Harness, run: RunId, after: u64, events: &[Event]) {
    let stored = harness.store.events(run, after, u32::MAX).await.unwrap();
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<_> = stored.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, expected);
    assert_eq!(events, stored);
}

#[tokio::test]
async fn pages_are_dense_and_go_on_where_they_ended() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    harness.say(run.id, lease, 250).await;
    let client = harness.client();
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = client.events_page(run.id, after, Some(60)).await.unwrap();
        seen.extend(page.items);
        match page.next {
            Some(next) => after = next.parse().unwrap(),
            None => break,
        }
    }
    assert_whole(&harness, run.id, 0, &seen).await;
    let plain = harness
        .get(&format!("/v1/runs/{}/events?after=3&limit=2", run.id))
        .await;
    let items = plain.json()["items"].clone();
    assert_eq!((&items[0]["seq"], &items[1]["seq"]), (&json!(4), &json!(5)));
    assert_eq!(items[0]["id"], format!("{}:4", run.id));
}

#[tokio::test]
async fn a_stream_replays_follows_and_ends_with_the_run() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    harness.say(run.id, lease, 300).await;
    let stream = harness.client().events(run.id, 0);
    let live = async {
        for _ in 0..20 {
            harness.say(run.id, lease, 5).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        harness.fail(run.id, lease).await;
    };
    let (events, ()) = tokio::join!(all(stream), live);
    assert_eq!(events.last().unwrap().kind, EventType::RunFailed);
    assert_whole(&harness, run.id, 0, &events).await;
}

#[tokio::test]
async fn the_wire_carries_ids_types_and_whole_events() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    harness.say(run.id, lease, 2).await;
    harness.fail(run.id, lease).await;
    let path = format!("/v1/runs/{}/events", run.id);
    let call = || Call::get(&path).header("Accept", "application/json;q=0.1, text/event-stream");
    let answer = harness.call(call()).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-store");
    let stored = harness.store.events(run.id, 0, 100).await.unwrap();
    let expected: Vec<_> = stored
        .iter()
        .map(|event| {
            (
                format!("{}:{}", run.id, event.seq),
                event.kind.to_string(),
                json!(event),
            )
        })
        .collect();
    assert_eq!(told(&answer.text()), expected);
    let last = stored.last().unwrap().seq;
    for (resumed, rest) in [
        (call().header("Last-Event-ID", &format!("{}:2", run.id)), &expected[2..]),
        (call().header("Last-Event-ID", &format!("{}:0", run.id)), &expected[..]),
    ] {
        assert_eq!(told(&harness.call(resumed).await.text()), rest);
    }
    // The header of a reconnecting browser wins over the address it began with.
    let both = Call::get(&format!("{path}?after=1"))
        .header("Accept", "text/event-stream")
        .header("Last-Event-ID", &format!("{}:3", run.id));
    assert_eq!(told(&harness.call(both).await.text()), expected[3..]);
    // Nothing more will come: the answer that makes a browser stop.
    let over = call().header("Last-Event-ID", &format!("{}:{last}", run.id));
    assert_eq!(harness.call(over).await.status, 204);
    assert!(all(harness.client().events(run.id, last)).await.is_empty());
}

#[tokio::test]
async fn malformed_foreign_and_future_places_are_refused() {
    let harness = Harness::start().await;
    let (run, _) = harness.running().await;
    let (other, _) = harness.running().await;
    let path = format!("/v1/runs/{}/events", run.id);
    for id in [
        "x".to_owned(),
        String::new(),
        "1".to_owned(),
        format!("{}", run.id),
        format!("{}:", run.id),
        format!("{}:-1", run.id),
        format!("{}:+1", run.id),
        format!("{}:01", run.id),
        format!("{}:1:1", run.id),
        format!("{}:99999999999999999999999", run.id),
        format!("{}:4", run.id),
        format!("{}:1", other.id),
    ] {
        let call = Call::get(&path)
            .header("Accept", "text/event-stream")
            .header("Last-Event-ID", &id);
        let answer = harness.call(call).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_event_id"),
            "{id}"
        );
    }
    for (query, code) in [
        ("after=4", "invalid_event_id"),
        ("after=x", "invalid_query"),
        ("before=1", "invalid_query"),
    ] {
        for accept in ["text/event-stream", "application/json"] {
            let call = Call::get(&format!("{path}?{query}")).header("Accept", accept);
            assert_eq!(harness.call(call).await.code(), code, "{query} {accept}");
        }
    }
}

/// A way to the gateway that breaks after some bytes, again and again, in the middle of
/// whatever is being said.
async fn breaking_proxy(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 0u64.. {
            let Ok((client, _)) = listener.accept().await else {
                return;
            };
            let Ok(server) = TcpStream::connect(gateway).await else {
                return;
            };
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                let mut some = from_server.take(1100 + n * 7919 % 3000);
                let _ = copy(&mut some, &mut to_client).await;
                up.abort();
            });
        }
    });
    address
}

#[tokio::test]
async fn a_client_behind_breaking_connections_sees_every_event_once() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    let proxy = breaking_proxy(harness.address).await;
    let client = Client::new(&format!("http://{proxy}"), &harness.token).unwrap();
    let stream = client.events_with(run.id, 0, BRISK);
    let live = async {
        for _ in 0..40 {
            harness.say(run.id, lease, 10).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        harness.fail(run.id, lease).await;
    };
    let (events, ()) = tokio::join!(all(stream), live);
    assert!(events.len() > 400);
    assert_whole(&harness, run.id, 0, &events).await;
}

#[tokio::test]
async fn many_readers_at_once_all_see_everything() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    let readers = (0..25).map(|n| {
        let client = harness.client();
        async move { (n % 3, all(client.events_with(run.id, n % 3, BRISK)).await) }
    });
    let live = async {
        for _ in 0..30 {
            harness.say(run.id, lease, 4).await;
            tokio::task::yield_now().await;
        }
        harness.fail(run.id, lease).await;
    };
    let (told, ()) = tokio::join!(futures::future::join_all(readers), live);
    for (after, events) in told {
        assert_whole(&harness, run.id, after, &events).await;
    }
}

#[tokio::test]
async fn a_lost_hint_costs_a_poll_interval_and_no_event() {
    let limits = HttpLimits {
        poll: Duration::from_millis(30),
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let (run, lease) = harness.running().await;
    let mut stream = harness.client().events(run.id, 3);
    let append = async |text: &str| {
        let event = NewEvent::new(EventType::MessageDelta, json!({ "text": text }));
        let at = harness.clock.now();
        harness.store.append(run.id, lease, vec![event], at).await.unwrap();
    };
    // Nobody tells the bus.
    append("one").await;
    let one = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    append("two").await;
    let two = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((one.seq, two.seq), (4, 5));
}

#[tokio::test]
async fn a_hint_is_quicker_than_a_poll() {
    let limits = HttpLimits {
        poll: Duration::from_secs(3600),
        keepalive: Duration::from_secs(3600),
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let (run, lease) = harness.running().await;
    let mut stream = harness.client().events(run.id, 0);
    for _ in 0..3 {
        timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    }
    for seq in 4..10 {
        // Hints for others do not matter, nor do doubled ones.
        harness.bus.publish(Topic::Queue).await;
        harness.say(run.id, lease, 1).await;
        harness.bus.publish(Topic::Run(run.id)).await;
        let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.seq, seq);
    }
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let harness = Harness::start().await;
    let (run, lease) = harness.running().await;
    let mut socket = TcpStream::connect(harness.address).await.unwrap();
    let request = format!(
        "GET /v1/runs/{}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
        run.id, harness.token
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    // Far more than sockets buffer, while nobody reads.
    let long = "x".repeat(16 << 10);
    for _ in 0..60 {
        let part = || NewEvent::new(EventType::MessageDelta, json!({ "text": long }));
        let events = (0..10).map(|_| part()).collect();
        harness
            .store
            .append(run.id, lease, events, harness.clock.now())
            .await
            .unwrap();
    }
    harness.fail(run.id, lease).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut bytes = Vec::new();
    timeout(Duration::from_secs(20), socket.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let places: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("id: {}:", run.id)))
        .map(|seq| seq.parse().unwrap())
        .collect();
    assert_eq!(places, (1..=604).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives_and_ends_with_its_token() {
    let limits = HttpLimits {
        keepalive: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let (run, _) = harness.running().await;
    let created = harness
        .client()
        .create_token(&stockade_api::v1::CreateToken {
            name: "reader".to_owned(),
            expires_in_seconds: None,
        })
        .await
        .unwrap();
    let mut stream = tokio::spawn(
        Call::get(&format!("/v1/runs/{}/events", run.id))
            .header("Accept", "text/event-stream")
            .token(created.secret.expose())
            .send(harness.address),
    );
    assert!(timeout(Duration::from_millis(300), &mut stream).await.is_err());
    harness.client().revoke_token(created.token.id).await.unwrap();
    let answer = timeout(PATIENCE, stream).await.unwrap().unwrap();
    assert!(answer.text().matches(": alive\n\n").count() >= 2, "{}", answer.text());
    assert_eq!(told(&answer.text()).len(), 3);
}

#[tokio::test]
async fn a_store_that_fails_ends_the_connection_and_the_client_resumes() {
    let limits = HttpLimits {
        poll: Duration::from_millis(10),
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let (run, lease) = harness.running().await;
    let stream = harness.client().events_with(run.id, 0, BRISK);
    let trouble = async {
        for _ in 0..3 {
            harness.say(run.id, lease, 3).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            harness.store.unavailable(true);
            tokio::time::sleep(Duration::from_millis(20)).await;
            harness.store.unavailable(false);
        }
        harness.fail(run.id, lease).await;
    };
    let (events, ()) = tokio::join!(all(stream), trouble);
    assert_whole(&harness, run.id, 0, &events).await;
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_said_at_once_and_one_that_leaves_after_some_patience() {
    let mut harness = Harness::start().await;
    let (run, _lease): (_, Lease) = harness.running().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{gone}"), &harness.token).unwrap();
    let mut stream = client.events(run.id, 0);
    let first = timeout(Duration::from_millis(900), stream.next()).await.unwrap();
    assert!(matches!(first, Some(Err(ClientError::Unreachable { .. }))), "{first:?}");
    assert!(stream.next().await.is_none());

    let patience = Reconnect { attempts: 3, ..BRISK };
    let mut stream = harness.client().events_with(run.id, 0, patience);
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    harness.stop.take().unwrap().send(()).unwrap();
    let end = timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(matches!(end, Some(Err(ClientError::Unreachable { .. }))), "{end:?}");
    assert!(stream.next().await.is_none());
}
