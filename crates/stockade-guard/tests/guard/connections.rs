use std::time::Duration;

use serde_json::json;
use stockade_domain::{AddressException, NetworkLevel, RuleVerdict};

use crate::{
    rig::{Plan, is_shut, listen, talk},
    world::{banner_server, echo_server, http_server},
};

fn get(host: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn an_address_no_name_led_to_is_refused() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.internet.place("93.184.216.34:80", http_server().await);
    for destination in [
        "93.184.216.34:80",
        "169.254.169.254:80",
        "10.0.0.1:443",
        "[2606:4700::1111]:443",
        "[fd00:ec2::254]:80",
        "[::ffff:10.0.0.1]:80",
        "8.8.8.8:853",
    ] {
        let mut stream = rig.connect(destination).await;
        let answer = talk(&mut stream, &get("a.example.com")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{destination}: {answer}");
        assert!(
            answer.contains("stockade.direct_address") && answer.contains("connect by name"),
            "{answer}"
        );
    }
    assert!(rig.internet.dialled().is_empty());
    let denied = rig.denied().await;
    assert_eq!(denied.len(), 7);
    assert_eq!(denied[1], "connect 169.254.169.254:80 stockade.direct_address");
    assert_eq!(denied[3], "connect [2606:4700::1111]:443 stockade.direct_address");
    // Control: by name the same server is reached.
    rig.names.set("a.example.com", &["93.184.216.34"]);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn the_sandboxs_own_loopback_leads_nowhere() {
    let rig = Plan::level(NetworkLevel::Full, &[]).start().await;
    for destination in ["127.0.0.1:8080", "127.8.8.8:80", "[::1]:443"] {
        assert!(is_shut(&mut rig.connect(destination).await).await, "{destination}");
    }
    let expected = ["127.0.0.1:8080", "127.8.8.8:80", "[::1]:443"].map(|d| format!("connect {d} stockade.loopback"));
    assert_eq!(rig.denied().await, expected);
}

#[tokio::test]
async fn a_synthetic_address_never_handed_out_is_refused() {
    let rig = Plan::level(NetworkLevel::Full, &[]).start().await;
    assert!(is_shut(&mut rig.connect("198.18.0.99:443").await).await);
    assert_eq!(rig.denied().await, ["connect 198.18.0.99:443 stockade.unknown_address"]);
}

#[tokio::test]
async fn a_name_that_leads_to_a_special_address_is_refused() {
    let rig = Plan::custom(&["*.example.com"]).start().await;
    let web = http_server().await;
    for (name, address) in [
        ("private.example.com", "10.1.2.3"),
        ("loopback.example.com", "127.0.0.1"),
        ("metadata.example.com", "169.254.169.254"),
        ("cgnat.example.com", "100.64.0.1"),
        ("mapped.example.com", "::ffff:10.0.0.1"),
        ("nat64.example.com", "64:ff9b::7f00:1"),
        ("ula.example.com", "fd00:ec2::254"),
        ("zero.example.com", "0.0.0.0"),
        ("own.example.com", "198.18.0.16"),
    ] {
        rig.host(name, address, 80, web);
        let mut stream = rig.connect_to(name, 80).await;
        let answer = talk(&mut stream, &get(name)).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("stockade.address"),
            "{name}: {answer}"
        );
    }
    assert!(rig.internet.dialled().is_empty());
    assert!(
        rig.denied()
            .await
            .iter()
            .all(|told| told.ends_with("example.com:80 stockade.address"))
    );
    let args = rig.events().await.pop().unwrap().data["args"].clone();
    assert_eq!(
        (args["address"].clone(), args["address_class"].clone()),
        (json!("198.18.0.16"), json!("synthetic"))
    );
    // Control: a public one works.
    rig.host("public.example.com", "93.184.216.34", 80, web);
    let mut stream = rig.connect_to("public.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("public.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn of_many_addresses_only_those_that_were_judged_are_dialled() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.internet.place("93.184.216.34:80", http_server().await);
    rig.names
        .set("a.example.com", &["10.0.0.1", "93.184.216.34", "fe80::1"]);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop(stream);
    assert_eq!(rig.internet.dialled(), ["93.184.216.34:80"]);
    let details = rig.settled(1).await[0]["details"].clone();
    assert_eq!(details["refused_addresses"], json!(["10.0.0.1", "fe80::1"]));
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_each_time() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let address = rig.address_of("a.example.com").await;
    let mut stream = rig.connect(&format!("{address}:80")).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    rig.names.set("a.example.com", &["169.254.169.254"]);
    let mut stream = rig.connect(&format!("{address}:80")).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .contains("stockade.address")
    );
    assert_eq!(rig.internet.dialled(), ["93.184.216.34:80"]);
}

#[tokio::test]
async fn an_exception_opens_its_range() {
    let mut plan = Plan::custom(&["a.example.com"]);
    plan.environment.address_exceptions.push(AddressException {
        cidr: "10.1.0.0/16".to_owned(),
        reason: "the lab".to_owned(),
    });
    let rig = plan.start().await;
    rig.host("a.example.com", "10.1.2.3", 80, http_server().await);
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop(stream);
    assert_eq!(
        rig.settled(1).await[0]["details"]["address_exception"],
        json!("10.1.0.0/16: the lab")
    );
}

#[tokio::test]
async fn an_alias_into_infrastructure_is_refused() {
    let rig = Plan::custom(&["a.example.com", "b.example.com"]).start().await;
    let web = http_server().await;
    rig.host("metadata.google.internal", "93.184.216.34", 80, web);
    rig.names.alias("a.example.com", "metadata.google.internal");
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("a.example.com"))
            .await
            .contains("stockade.infrastructure_name")
    );
    assert!(rig.internet.dialled().is_empty());
    // Control: an alias to an ordinary name, which is on no list, works.
    rig.host("cdn.example.net", "93.184.216.34", 80, web);
    rig.names.alias("b.example.com", "cdn.example.net");
    let mut stream = rig.connect_to("b.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("b.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_host_with_only_an_ipv6_address_is_reached_over_it() {
    let rig = Plan::custom(&["six.example.com"]).start().await;
    rig.host("six.example.com", "2606:4700::1111", 80, http_server().await);
    let mut stream = rig.connect_to("six.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("six.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(rig.internet.dialled(), ["[2606:4700::1111]:80"]);
}

#[tokio::test]
async fn full_reaches_public_addresses_and_still_no_others() {
    let rig = Plan::level(NetworkLevel::Full, &[])
        .rule("no-evil", "*.evil.example", RuleVerdict::Deny)
        .start()
        .await;
    rig.internet.place("93.184.216.34:80", http_server().await);
    let ask = async |destination: &str, host: &str| talk(&mut rig.connect(destination).await, &get(host)).await;
    assert!(
        ask("93.184.216.34:80", "93.184.216.34")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask("93.184.216.34:80", "www.good.example")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(ask("93.184.216.34:80", "www.EVIL.example").await.contains("no-evil"));
    assert!(
        ask("169.254.169.254:80", "www.good.example")
            .await
            .contains("stockade.direct_address")
    );
    assert_eq!(rig.internet.dialled(), ["93.184.216.34:80"; 2]);
}

#[tokio::test]
async fn unknown_protocols_are_refused_on_the_webs_ports_and_ports_not_named_are_closed() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.host("a.example.com", "93.184.216.34", 443, echo_server().await);
    let mut stream = rig.connect_to("a.example.com", 443).await;
    assert_eq!(talk(&mut stream, b"SSH-2.0-x\r\n").await, "");
    let mut silent = rig.connect_to("a.example.com", 443).await;
    assert!(is_shut(&mut silent).await, "after the handshake timeout");
    let mut other = rig.connect_to("a.example.com", 22).await;
    assert_eq!(talk(&mut other, b"SSH-2.0-x\r\n").await, "");
    assert!(rig.internet.dialled().is_empty());
    let expected = ["443 stockade.protocol", "443 stockade.protocol", "22 env.port"];
    assert_eq!(
        rig.denied().await,
        expected.map(|e| format!("connect a.example.com:{e}"))
    );
}

#[tokio::test]
async fn a_port_named_in_the_environment_carries_any_protocol() {
    let rig = Plan::custom(&["git.example.com:22", "mail.example.com:2525"])
        .start()
        .await;
    rig.host("git.example.com", "93.184.216.34", 22, echo_server().await);
    let mut stream = rig.connect_to("git.example.com", 22).await;
    assert_eq!(talk(&mut stream, b"SSH-2.0-x\r\n").await, "SSH-2.0-x\r\n");
    // A server that speaks first is waited for.
    rig.host("mail.example.com", "93.184.216.35", 2525, banner_server().await);
    let mut stream = rig.connect_to("mail.example.com", 2525).await;
    assert_eq!(listen(&mut stream).await, "220 ready\r\n");
    assert_eq!(talk(&mut stream, b"EHLO x\r\n").await, "EHLO x\r\n");
    drop(stream);
    assert_eq!(
        rig.allowed().await,
        [
            "connect git.example.com:22 env.custom:git.example.com:22",
            "connect mail.example.com:2525 env.custom:mail.example.com:2525"
        ]
    );
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let mut plan = Plan::custom(&["a.example.com:9000"]);
    plan.config.max_connections = 2;
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 9000, echo_server().await);
    let mut first = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut first, b"one").await, "one");
    let mut second = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut second, b"two").await, "two");
    assert!(is_shut(&mut rig.connect_to("a.example.com", 9000).await).await);
    assert_eq!(rig.denied().await, ["connect a.example.com:9000 stockade.limit"]);
    drop(first);
    rig.settled(1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut third = rig.connect_to("a.example.com", 9000).await;
    assert_eq!(talk(&mut third, b"three").await, "three", "a place is free again");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_settled_as_failed() {
    let rig = Plan::custom(&["*.example.com"]).start().await;
    rig.names.set("down.example.com", &["93.184.216.34"]);
    let mut stream = rig.connect_to("down.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("down.example.com"))
            .await
            .starts_with("HTTP/1.1 502")
    );
    let mut stream = rig.connect_to("missing.example.com", 80).await;
    assert!(
        talk(&mut stream, &get("missing.example.com"))
            .await
            .contains("does not exist")
    );
    for settled in rig.settled(2).await {
        assert_eq!(settled["outcome"]["result"], "failed", "{settled}");
    }
}
