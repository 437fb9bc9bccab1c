//! Fail closed under load: what is taken away, breaks or ends lets no byte through afterwards, counted
//! at a sink outside while many send.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stockade_domain::EventType;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::sleep};

use super::Sink;
use crate::rig::{Plan, Rig};

/// Connections that send at the same time.
const MANY: usize = 20;

/// A session in which many send to two hosts, without a pause, until they cannot.
struct Load {
    rig: Rig,
    leak: Sink,
    other: Sink,
    senders: JoinSet<()>,
    /// What they still send counts as an attempt.
    go: Arc<AtomicBool>,
}

impl Load {
    async fn start() -> Self {
        let rig = Plan::custom(&["leak.example.com:9000", "other.example.com:9000"])
            .start()
            .await;
        let (leak, other) = (Sink::default(), Sink::default());
        rig.host("leak.example.com", "93.184.216.34", 9000, leak.start().await);
        rig.host("other.example.com", "93.184.216.35", 9000, other.start().await);
        let mut senders = JoinSet::new();
        let go = Arc::new(AtomicBool::new(true));
        for n in 0..MANY {
            let host = if n % 4 == 0 {
                "other.example.com"
            } else {
                "leak.example.com"
            };
            let stream = rig.connect_to(host, 9000).await;
            senders.spawn(send(stream, Arc::clone(&go)));
        }
        while rig.internet.dialled().len() < MANY {
            sleep(Duration::from_millis(5)).await;
        }
        let load = Self {
            rig,
            leak,
            other,
            senders,
            go,
        };
        load.flows(&load.leak, true).await;
        load.flows(&load.other, true).await;
        load
    }

    /// Whether bytes arrive within a moment.
    async fn flows(&self, sink: &Sink, expected: bool) {
        let before = sink.bytes();
        for _ in 0..if expected { 200 } else { 20 } {
            sleep(Duration::from_millis(20)).await;
            if expected && sink.bytes() > before {
                return;
            }
        }
        assert_eq!(sink.bytes() > before, expected, "{} after {before}", sink.bytes());
    }

    /// What the settlements of the connections to a host say how they ended, and what they carried.
    async fn ended(&self, host: &str, count: usize) -> (Vec<String>, u64) {
        let own = |settled: &serde_json::Value| settled["details"]["host"] == host;
        for _ in 0..1000 {
            let settled: Vec<_> = self.rig.settled(1).await.into_iter().filter(own).collect();
            if settled.len() >= count {
                let ended = settled
                    .iter()
                    .map(|s| s["details"]["ended"].as_str().unwrap().to_owned());
                let bytes = settled.iter().map(|s| s["details"]["bytes_up"].as_u64().unwrap());
                return (ended.collect(), bytes.sum());
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{host}: fewer than {count} settled");
    }

    async fn stop(mut self) {
        self.go.store(false, Ordering::SeqCst);
        self.senders.abort_all();
        while self.senders.join_next().await.is_some() {}
    }
}

/// Sends all the time; a connection that was reset is tried again and again all the same.
async fn send(mut stream: TcpStream, go: Arc<AtomicBool>) {
    let piece = [b'x'; 1024];
    while go.load(Ordering::SeqCst) {
        if stream.write_all(&piece).await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_revocation_no_byte_gets_there() {
    let load = Load::start().await;
    let address = load.rig.address_of("leak.example.com").await;
    load.rig.revoke("leak.example.com").await;
    let told = load.rig.data(EventType::EgressRevoked, 1).await.remove(0);
    assert_eq!(told["closed"].as_u64(), Some(15));
    let (ended, counted) = load.ended("leak.example.com", 15).await;
    assert!(ended.iter().all(|ended| ended == "revoked"), "{ended:?}");
    // What the sink's kernel had already is not on its way any more.
    load.leak.at_rest().await;
    load.flows(&load.leak, false).await;
    assert!(load.leak.bytes() <= counted, "{} of {counted}", load.leak.bytes());
    load.flows(&load.other, true).await;
    let dialled = load.rig.internet.dialled().len();
    let mut late = load.rig.connect(&format!("{address}:9000")).await;
    let _ = late.write_all(b"late").await;
    load.flows(&load.leak, false).await;
    assert_eq!(load.rig.internet.dialled().len(), dialled, "nothing is dialled");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_end_of_the_session_no_byte_gets_anywhere() {
    let mut load = Load::start().await;
    load.rig.close().await;
    for sink in [&load.leak, &load.other] {
        sink.at_rest().await;
        load.flows(sink, false).await;
    }
    let (ended, counted) = load.ended("leak.example.com", 15).await;
    assert!(ended.iter().all(|ended| ended == "sandbox ended"), "{ended:?}");
    assert!(load.leak.bytes() <= counted);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_store_no_byte_gets_anywhere_after_the_patience() {
    let load = Load::start().await;
    load.rig.store.unavailable(true);
    sleep(Duration::from_millis(6500)).await;
    for sink in [&load.leak, &load.other] {
        sink.at_rest().await;
        load.flows(sink, false).await;
    }
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_fails_ends_its_connections_and_no_others() {
    let rig = Plan::custom(&["leak.example.com:9000", "other.example.com:9000"])
        .start()
        .await;
    let other = Sink::default();
    // Takes a little and resets.
    let failing = crate::world::serve(|mut stream| async move {
        let mut some = [0; 512];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut some).await;
        stream.set_zero_linger()
    });
    rig.host("leak.example.com", "93.184.216.34", 9000, failing.await);
    rig.host("other.example.com", "93.184.216.35", 9000, other.start().await);
    let go = Arc::new(AtomicBool::new(true));
    let mut senders = JoinSet::new();
    for n in 0..MANY {
        let host = if n % 4 == 0 {
            "other.example.com"
        } else {
            "leak.example.com"
        };
        let stream = rig.connect_to(host, 9000).await;
        senders.spawn(send(stream, Arc::clone(&go)));
    }
    let settled = rig.settled(15).await;
    for settled in &settled {
        assert_eq!(settled["details"]["host"], "leak.example.com");
        assert_eq!(settled["details"]["ended"], "broken", "{settled}");
    }
    let before = other.bytes();
    sleep(Duration::from_millis(300)).await;
    assert!(other.bytes() > before, "control");
    senders.abort_all();
}
