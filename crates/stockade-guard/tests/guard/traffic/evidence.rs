//! What is told of every connection, and of floods.

use std::time::Duration;

use serde_json::json;
use stockade_domain::EventType;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    rig::{Plan, talk},
    world::{echo_server, http_server},
};

#[tokio::test]
async fn every_connection_has_one_event_at_its_start_and_one_at_its_end() {
    let rig = Plan::custom(&["a.example.com", "b.example.com:9000"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    rig.host("b.example.com", "93.184.216.35", 9000, echo_server().await);
    let mut web = rig.connect_to("a.example.com", 80).await;
    let request = b"GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let heard = talk(&mut web, request).await;
    drop(web);
    rig.settled(1).await;
    let mut raw = rig.connect_to("b.example.com", 9000).await;
    assert_eq!(talk(&mut raw, b"hello").await, "hello");
    drop(raw);
    let ends = rig.settled(2).await;
    let starts = rig.data(EventType::EgressAllowed, 2).await;
    assert_eq!((starts.len(), ends.len()), (2, 2));
    let expected = [
        ("a.example.com", 80, "http", "93.184.216.34:80", false),
        ("b.example.com", 9000, "tcp", "93.184.216.35:9000", true),
    ];
    for ((start, end), (host, port, protocol, address, blind)) in starts.iter().zip(&ends).zip(expected) {
        assert_eq!(start["action"], end["action"]);
        let (args, details) = (&start["args"], &end["details"]);
        for told in [args, details] {
            assert_eq!(
                (&told["host"], &told["port"], &told["protocol"]),
                (&json!(host), &json!(port), &json!(protocol))
            );
        }
        assert_eq!(details["address"], address);
        assert_eq!(
            (&details["verdict"], &details["rule"]),
            (&json!("allow"), &start["rule"])
        );
        assert_eq!(details["reason"], start["reason"]);
        assert_eq!(
            (&details["blind"], &details["inspected"]),
            (&json!(blind), &json!(false))
        );
        assert!(
            details["duration_ms"].is_u64() && details["ended"] == "closed",
            "{details}"
        );
    }
    let bytes = |n: usize, key: &str| ends[n]["details"][key].as_u64().unwrap();
    assert_eq!((bytes(1, "bytes_up"), bytes(1, "bytes_down")), (5, 5));
    assert_eq!((bytes(1, "blind_up"), bytes(1, "blind_down")), (5, 5));
    // The Guard's own answer has a date beside what came.
    assert!(
        (50..=heard.len() as u64).contains(&bytes(0, "bytes_down")),
        "{}",
        ends[0]
    );
    assert_eq!((bytes(0, "blind_up"), bytes(0, "blind_down")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_refusals_is_sampled_and_adds_up() {
    let mut plan = Plan::custom(&["a.example.com"]);
    plan.config.report_interval = Duration::from_millis(100);
    plan.config.max_dns_per_second = 100_000;
    let mut rig = plan.start().await;
    let mut asked = 0;
    for round in 0..4 {
        let mut flood = JoinSet::new();
        for n in 0..50_u32 {
            let mut stream = rig.connect(&format!("10.0.{round}.{}:443", n % 5)).await;
            flood.spawn(async move { talk(&mut stream, b"x").await });
            asked += 1;
        }
        flood.join_all().await;
        // The store misses some of it.
        rig.store.unavailable(round == 1);
        for n in 0..25 {
            let mut stream = rig.connect(&format!("[fd00::{n}]:80")).await;
            talk(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            asked += 1;
        }
        rig.store.unavailable(false);
        sleep(Duration::from_millis(150)).await;
    }
    let before = rig.denied().await.len();
    rig.close().await;
    let records = rig.denied().await.len() as u64;
    assert!(before > 0 && records < asked, "{before} and {records} of {asked}");
    assert_eq!(rig.refused("stockade.direct_address").await, asked);
    let sampled = rig.data(EventType::EgressDenied, 1).await;
    assert!(sampled.iter().any(|data| data["args"]["counted"].as_u64() > Some(1)));
}
