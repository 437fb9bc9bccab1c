//! Limits on bytes and connections, of a run and of rules.

use std::sync::atomic::Ordering;

use serde_json::json;
use stockade_domain::{EgressProtocol, EgressRule, EventType, RuleVerdict, TrafficLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

use super::{Sink, pour, some};
use crate::{
    rig::{Plan, SOON, is_shut, listen, talk},
    world::{echo_server, http_server, serve},
};

const LIMIT: u64 = 300_000;

fn limited(domains: &[&str], traffic: TrafficLimits) -> Plan {
    let mut plan = Plan::custom(domains);
    plan.environment.traffic = traffic;
    plan
}

fn ask(host: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_out_never_exceed_the_runs_limit_however_many_send() {
    let traffic = TrafficLimits {
        bytes_up: some(LIMIT),
        ..TrafficLimits::default()
    };
    let rig = limited(&["a.example.com:9000"], traffic).start().await;
    let sink = Sink::default();
    rig.host("a.example.com", "93.184.216.34", 9000, sink.start().await);
    let mut senders = JoinSet::new();
    for n in 0..24 {
        let stream = rig.connect_to("a.example.com", 9000).await;
        senders.spawn(pour(stream, 100 + 977 * n));
    }
    let poured: u64 = timeout(SOON, senders.join_all()).await.expect("an end").iter().sum();
    assert!(poured > LIMIT, "they would have sent more: {poured}");
    let begun = rig.data(EventType::EgressAllowed, 1).await.len() as u64;
    // Every connection looked the name up: two questions of 12 + 13 + 6 bytes.
    let arrived = sink.at_rest().await;
    assert!(arrived + begun * 62 <= LIMIT, "{arrived} by {begun}");
    let settled = rig.settled(begun as usize).await;
    let counted: u64 = settled.iter().map(|s| s["details"]["bytes_up"].as_u64().unwrap()).sum();
    assert!(counted >= arrived && counted + begun * 62 <= LIMIT, "{counted}");
    let cut: Vec<_> = settled.iter().filter(|s| s["details"]["ended"] == "limit").collect();
    assert!(!cut.is_empty());
    for settled in &cut {
        let error = settled["outcome"]["error"].as_str().unwrap();
        assert!(error.contains("300000 bytes up"), "{error}");
    }
    assert_eq!(
        rig.data(EventType::EgressLimit, 1).await,
        [json!({ "limit": "env.traffic.bytes_up", "value": LIMIT,
            "reason": "the limit of the run is reached: 300000 bytes up" })],
        "told once"
    );
    assert!(rig.refused("env.traffic.bytes_up").await > 0);
    let session = rig.session.as_ref().unwrap();
    assert_eq!(session.limits_met(), ["env.traffic.bytes_up=300000"]);
    // Nothing begins any more, and the client is told where its protocol has words.
    let mut late = rig.connect_to("a.example.com", 9000).await;
    let answer = talk(&mut late, &ask("a.example.com:9000")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("env.traffic.bytes_up"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_limit_the_same_goes_through() {
    let rig = limited(&["a.example.com:9000"], TrafficLimits::default()).start().await;
    let sink = Sink::default();
    rig.host("a.example.com", "93.184.216.34", 9000, sink.start().await);
    for _ in 0..3 {
        let mut stream = rig.connect_to("a.example.com", 9000).await;
        stream.write_all(&vec![b'x'; 200_000]).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    let settled = rig.settled(3).await;
    assert!(
        settled.iter().all(|s| s["details"]["bytes_up"] == 200_000),
        "{settled:?}"
    );
    assert_eq!(sink.at_rest().await, 600_000);
    assert!(rig.session.as_ref().unwrap().limits_met().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_in_end_with_the_limit_to_the_byte() {
    let traffic = TrafficLimits {
        bytes_down: some(LIMIT),
        ..TrafficLimits::default()
    };
    let rig = limited(&["a.example.com:9000"], traffic).start().await;
    let endless = serve(|mut stream| async move {
        loop {
            stream.write_all(&[b'y'; 4096]).await?;
        }
    });
    rig.host("a.example.com", "93.184.216.34", 9000, endless.await);
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let mut stream = rig.connect_to("a.example.com", 9000).await;
        readers.spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            let mut got = 0;
            while let Ok(more @ 1..) = stream.read(&mut buffer).await {
                got += more as u64;
            }
            got
        });
    }
    let got: u64 = timeout(SOON, readers.join_all()).await.expect("an end").iter().sum();
    assert!(got <= LIMIT, "{got}");
    // Some may have come too late to begin.
    let settled = rig.settled(rig.allowed().await.len()).await;
    let counted: u64 = settled
        .iter()
        .map(|s| s["details"]["bytes_down"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, LIMIT);
}

#[tokio::test]
async fn connections_are_counted_and_refused_in_the_clients_words() {
    let traffic = TrafficLimits {
        connections: some(2),
        ..TrafficLimits::default()
    };
    let rig = limited(&["a.example.com"], traffic).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    for _ in 0..2 {
        let mut stream = rig.connect_to("a.example.com", 80).await;
        assert!(
            talk(&mut stream, &ask("a.example.com"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
    let mut third = rig.connect_to("a.example.com", 80).await;
    let answer = talk(&mut third, &ask("a.example.com")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("2 connections"),
        "{answer}"
    );
    // A TLS client gets an alert.
    rig.host("a.example.com", "93.184.216.34", 443, echo_server().await);
    let mut hello = Vec::new();
    let config =
        rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    let name = "a.example.com".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut tls = rig.connect_to("a.example.com", 443).await;
    tls.write_all(&hello).await.unwrap();
    let mut alert = Vec::new();
    timeout(SOON, tls.read_to_end(&mut alert)).await.unwrap().unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 49], "access_denied");
    assert_eq!(rig.internet.dialled().len(), 2);
    assert_eq!(rig.refused("env.traffic.connections").await, 2);
}

#[tokio::test]
async fn a_rate_is_a_429_that_says_when_to_come_back() {
    let traffic = TrafficLimits {
        connections_per_minute: some(1),
        ..TrafficLimits::default()
    };
    let rig = limited(&["a.example.com"], traffic).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut first = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut first, &ask("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let mut second = rig.connect_to("a.example.com", 80).await;
    let answer = talk(&mut second, &ask("a.example.com")).await.to_lowercase();
    assert!(
        answer.starts_with("http/1.1 429") && answer.contains("retry-after: 60\r\n"),
        "{answer}"
    );
    // On a connection that is open, nothing begins.
    assert!(
        talk(&mut first, &ask("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_rules_limit_is_its_own() {
    let mut plan = Plan::custom(&["b.example.com:9000"]);
    let mut rule = EgressRule::hosts(RuleVerdict::Allow, &["a.example.com"]);
    rule.name = Some("small".to_owned());
    rule.protocols = vec![EgressProtocol::Tcp];
    rule.ports = vec![9000];
    rule.limits.bytes_up = some(1000);
    plan.environment.egress = vec![rule];
    let rig = plan.start().await;
    let (small, free) = (Sink::default(), Sink::default());
    rig.host("a.example.com", "93.184.216.34", 9000, small.start().await);
    rig.host("b.example.com", "93.184.216.35", 9000, free.start().await);
    let mut stream = rig.connect_to("a.example.com", 9000).await;
    let _ = stream.write_all(&[b'x'; 5000]).await;
    assert!(is_shut(&mut stream).await);
    let settled = rig.settled(1).await.remove(0);
    let used = &settled["details"]["charged"]["env.egress[0]:small"];
    assert_eq!(
        (used["bytes_up"].as_u64(), used["connections"].as_u64()),
        (Some(1000), Some(1))
    );
    assert_eq!(settled["details"]["ended"], "limit");
    assert!(small.at_rest().await <= 938, "the look-up was 62");
    let mut stream = rig.connect_to("b.example.com", 9000).await;
    stream.write_all(&[b'x'; 5000]).await.unwrap();
    stream.shutdown().await.unwrap();
    rig.settled(2).await;
    assert_eq!(free.at_rest().await, 5000, "control");
    assert_eq!(free.ended.load(Ordering::SeqCst), 1);
    let met = rig.data(EventType::EgressLimit, 1).await;
    assert_eq!(met[0]["limit"], "env.egress[0]:small.bytes_up");
}

#[tokio::test]
async fn a_rules_limit_holds_for_a_name_behind_a_bare_address() {
    let mut plan = Plan::level(stockade_domain::NetworkLevel::Full, &[]);
    let mut rule = EgressRule::hosts(RuleVerdict::Allow, &["a.example.com"]);
    rule.limits.connections = some(1);
    plan.environment.egress = vec![rule];
    let rig = plan.start().await;
    rig.internet.place("93.184.216.34:80", http_server().await);
    let mut first = rig.connect("93.184.216.34:80").await;
    assert!(
        talk(&mut first, &ask("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let mut second = rig.connect("93.184.216.34:80").await;
    let answer = talk(&mut second, &ask("a.example.com")).await;
    assert!(answer.contains("env.egress[0].connections"), "{answer}");
    let mut other = rig.connect("93.184.216.34:80").await;
    assert!(
        talk(&mut other, &ask("b.example.com"))
            .await
            .starts_with("HTTP/1.1 200"),
        "control"
    );
    drop(listen(&mut other).await);
}
