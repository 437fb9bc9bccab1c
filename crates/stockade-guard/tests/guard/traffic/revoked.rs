//! Hosts taken away from a session that runs.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use stockade_domain::EventType;
use stockade_ports::{Bus, Clock, Store, SystemClock, Topic};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    rig::{Plan, Rig, SOON, is_shut, talk},
    world::{echo_server, http_server},
};

fn get(host: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

async fn two_hosts() -> Rig {
    let rig = Plan::custom(&["*.leak.example", "*.leak.example:9000", "a.example.com:9000"])
        .start()
        .await;
    rig.host("x.leak.example", "93.184.216.34", 9000, echo_server().await);
    rig.host("x.leak.example", "93.184.216.34", 80, http_server().await);
    rig.host("a.example.com", "93.184.216.35", 9000, echo_server().await);
    rig
}

#[tokio::test]
async fn a_revocation_cuts_what_is_open_and_refuses_what_is_new() {
    let rig = two_hosts().await;
    let mut raw = rig.connect_to("x.leak.example", 9000).await;
    assert_eq!(talk(&mut raw, b"one").await, "one");
    let mut web = rig.connect_to("x.leak.example", 80).await;
    assert!(talk(&mut web, &get("x.leak.example")).await.starts_with("HTTP/1.1 200"));
    let mut other = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut other, b"one").await, "one");
    let address = rig.address_of("x.leak.example").await;

    let begun = Instant::now();
    let revocation = rig.revoke("*.leak.example").await;
    assert!(is_shut(&mut raw).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let told = rig.data(EventType::EgressRevoked, 1).await.remove(0);
    assert_eq!(
        (
            told["hosts"].as_str(),
            told["by"].as_str(),
            told["reason"].as_str(),
            told["closed"].as_u64()
        ),
        (Some("*.leak.example"), Some("ada"), Some("a leak"), Some(2))
    );
    for settled in rig.settled(2).await {
        assert_eq!(settled["details"]["ended"], "revoked");
        assert_eq!(
            settled["outcome"]["error"],
            "'*.leak.example' was revoked by ada: a leak"
        );
    }
    // On the connection that the client keeps, by the address it has, and by name.
    let answer = talk(&mut web, &get("x.leak.example")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("\"revoked\""),
        "{answer}"
    );
    let mut again = rig.connect(&format!("{address}:80")).await;
    let answer = talk(&mut again, &get("x.leak.example")).await;
    assert!(answer.contains("was revoked by ada: a leak"), "{answer}");
    for name in ["x.leak.example", "y.leak.example"] {
        assert_eq!(
            rig.resolve(name, RecordType::A).await.0,
            ResponseCode::NXDomain,
            "{name}"
        );
    }
    assert_eq!(talk(&mut other, b"two").await, "two", "control: another host goes on");

    rig.store
        .lift_revocation(rig.team, revocation.id, "bob".to_owned(), SystemClock.now())
        .await
        .unwrap();
    rig.bus.publish(Topic::Revocations).await;
    rig.data(EventType::EgressRestored, 1).await;
    let mut back = rig.connect_to("x.leak.example", 9000).await;
    assert_eq!(talk(&mut back, b"back").await, "back");
}

#[tokio::test]
async fn it_needs_no_hint_and_concerns_its_own_team_and_environment_only() {
    let rig = two_hosts().await;
    let mut raw = rig.connect_to("x.leak.example", 9000).await;
    assert_eq!(talk(&mut raw, b"one").await, "one");
    let mut stranger = rig.revoke("unused.example").await;
    for (team, environment) in [(stockade_domain::TeamId::DEFAULT, "test"), (rig.team, "other")] {
        stranger.id = stockade_domain::RevocationId::from_uuid(SystemClock.uuid());
        (stranger.team, stranger.environment, stranger.hosts) = (team, environment.to_owned(), "*".to_owned());
        rig.store.put_revocation(stranger.clone()).await.unwrap();
    }
    sleep(Duration::from_millis(900)).await;
    assert_eq!(talk(&mut raw, b"two").await, "two");
    // Written by another process: nobody hints.
    stranger.id = stockade_domain::RevocationId::from_uuid(SystemClock.uuid());
    stranger.environment = "test".to_owned();
    let begun = Instant::now();
    rig.store.put_revocation(stranger).await.unwrap();
    assert!(is_shut(&mut raw).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let mut other = rig.connect("198.18.0.99:9000").await;
    assert!(is_shut(&mut other).await);
}

#[tokio::test]
async fn a_guard_that_cannot_read_revocations_lets_nothing_out() {
    let mut plan = Plan::custom(&["a.example.com:9000", "a.example.com"]);
    plan.config.revocation_patience = Duration::from_millis(600);
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 9000, echo_server().await);
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut raw = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut raw, b"one").await, "one");
    let address = rig.address_of("a.example.com").await;
    rig.store.unavailable(true);
    let shut = timeout(Duration::from_secs(3), is_shut(&mut raw)).await;
    assert_eq!(shut, Ok(true), "what was open is cut");
    let mut new = rig.connect(&format!("{address}:80")).await;
    let answer = talk(&mut new, &get("a.example.com")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("stockade.revocations"),
        "{answer}"
    );
    rig.store.unavailable(false);
    let back = async {
        loop {
            let mut stream = rig.connect(&format!("{address}:80")).await;
            if talk(&mut stream, &get("a.example.com"))
                .await
                .starts_with("HTTP/1.1 200")
            {
                return;
            }
        }
    };
    timeout(SOON, back).await.expect("control: the store answers again");
}
