use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use serde_json::json;
use stockade_domain::{Environment, NetworkLevel};
use stockade_gate::Gate;
use stockade_guard::{Guard, GuardConfig};
use stockade_ports::{
    Boundary, Egress, EgressError, Lease, Store, SystemClock,
    sim::{MemoryStore, RecordingBus},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};

use crate::{
    rig::{Gateway, Plan, SOON, is_shut, talk},
    world::{echo_server, http_server},
};

#[tokio::test]
async fn closing_ends_and_settles_every_connection() {
    let mut rig = Plan::custom(&["a.example.com:9000", "a.example.com"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 9000, echo_server().await);
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut raw = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut raw, b"hello").await, "hello");
    let mut web = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut web, b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    rig.close().await;
    // No waiting: close has waited.
    let in_flight = rig
        .store
        .actions(rig.run)
        .await
        .unwrap()
        .iter()
        .filter(|a| a.in_flight())
        .count();
    assert_eq!(in_flight, 0);
    for settled in rig.settled(2).await {
        assert_eq!(settled["outcome"], json!({ "result": "done" }));
        assert_eq!(settled["details"]["ended"], "sandbox ended");
    }
    assert!(is_shut(&mut raw).await && is_shut(&mut web).await);
}

#[tokio::test]
async fn dropping_a_session_ends_its_connections() {
    let mut rig = Plan::custom(&["a.example.com:9000"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 9000, echo_server().await);
    let mut stream = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut stream, b"hello").await, "hello");
    drop(rig.session.take());
    assert!(is_shut(&mut stream).await);
    let details = rig.settled(1).await[0]["details"].clone();
    assert_eq!(
        (details["bytes_up"].as_u64(), details["bytes_down"].as_u64()),
        (Some(5), Some(5))
    );
}

#[tokio::test]
async fn without_the_store_nothing_passes() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let get = b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    rig.store.unavailable(true);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let answer = talk(&mut stream, get).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("stockade.store"),
        "{answer}"
    );
    assert!(rig.internet.dialled().is_empty());
    rig.store.unavailable(false);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(talk(&mut stream, get).await.starts_with("HTTP/1.1 200"), "control");
}

#[tokio::test]
async fn a_refusal_the_store_missed_is_written_down_on_close() {
    let mut rig = Plan::custom(&[]).start().await;
    rig.store.unavailable(true);
    assert!(is_shut(&mut rig.connect("127.0.0.1:1").await).await);
    rig.store.unavailable(false);
    assert!(rig.denied().await.is_empty());
    rig.close().await;
    assert_eq!(rig.denied().await, ["connect 127.0.0.1:1 stockade.loopback"]);
}

#[tokio::test]
async fn a_silent_connection_is_ended() {
    let mut plan = Plan::custom(&["a.example.com:9000"]);
    plan.config.idle_timeout = Duration::from_millis(300);
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 9000, echo_server().await);
    let mut stream = rig.connect_to("a.example.com", 9000).await;
    let begun = Instant::now();
    assert_eq!(talk(&mut stream, b"hello").await, "hello");
    assert!(timeout(SOON, is_shut(&mut stream)).await.unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(rig.settled(1).await[0]["details"]["ended"], "idle");
}

#[tokio::test]
async fn closing_does_not_wait_for_a_name_server() {
    let mut plan = Plan::custom(&["silence.example.com"]);
    plan.config.dns_timeout = Duration::from_secs(60);
    let mut rig = plan.start().await;
    let mut stream = rig.connect_to("silence.example.com", 80).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: silence.example.com\r\n\r\n")
        .await
        .unwrap();
    let asked = async {
        while rig.names.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, asked).await.expect("a look-up");
    timeout(Duration::from_secs(2), rig.close()).await.expect("at once");
    assert!(
        rig.allowed().await.is_empty(),
        "nothing was admitted that could not happen any more"
    );
}

#[tokio::test]
async fn rules_that_do_not_compile_leave_the_boundary_unserved() {
    let rig = Plan::custom(&[]).start().await;
    let mut run = rig.store.run(None, rig.run).await.unwrap();
    run.spec.environment = Environment::named("wide", NetworkLevel::Full);
    let gate = Gate::new(
        Arc::new(MemoryStore::default()),
        Arc::new(RecordingBus::default()),
        Arc::new(SystemClock),
    );
    let config = GuardConfig {
        nameservers: vec![rig.names.address],
        ..GuardConfig::default()
    };
    let guard = Guard::new(gate, Arc::new(Gateway::default()), config).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let boundary = Boundary {
        tcp4: OwnedFd::from(listener),
        tcp6: None,
        dns4: OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()),
        dns6: None,
    };
    let refused = guard.guard(&run, Lease { fence: 1 }, boundary).await.err();
    assert!(matches!(refused, Some(EgressError::Environment { environment, .. }) if environment == "wide"));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
