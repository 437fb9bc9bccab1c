//! CONNECT, and what is neither that nor HTTP.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use stockade_domain::{Decision, NetworkLevel, RuleVerdict};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;

use super::{PROXY, connect, get, rig, say, to_proxy};
use crate::{
    inspected::World,
    rig::{Plan, is_shut, listen, talk},
    world::{banner_server, http_server},
};

const GRANTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn after_connect_a_connection_is_one_like_any_other() {
    let rig = rig().await;
    let mut stream = to_proxy(&rig).await;
    assert_eq!(
        talk(&mut stream, connect("A.Example.COM.:80").as_bytes()).await,
        GRANTED
    );
    let answer = talk(&mut stream, get("a.example.com").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x HTTP/1.1"),
        "{answer}"
    );
    drop(stream);
    assert_eq!(rig.settled(1).await[0]["details"]["requests"], 1);
    assert_eq!(
        rig.allowed().await,
        ["connect a.example.com:80 env.custom:a.example.com"]
    );
    assert!(rig.denied().await.is_empty());
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let rig = rig().await;
    rig.host("a.example.com", "93.184.216.34", 22, banner_server().await);
    let mut stream = to_proxy(&rig).await;
    let heard = talk(&mut stream, b"CONNECT a.example.com:22 HTTP/1.0\r\n\r\n").await;
    let heard = heard + &listen(&mut stream).await;
    assert_eq!(heard, format!("{GRANTED}220 ready\r\n"));
}

#[tokio::test]
async fn what_a_connection_may_not_reach_a_connect_may_not() {
    let rig = rig().await;
    for (place, target, rule) in [
        ("evil.example:443", "evil.example:443", "env.custom"),
        ("a.example.com:25", "a.example.com:25", "env.port"),
        ("93.184.216.34:80", "93.184.216.34:80", "stockade.direct_address"),
        ("0x5d.0xb8.55330:443", "93.184.216.34:443", "stockade.direct_address"),
        ("2130706433:80", "127.0.0.1:80", "stockade.loopback"),
        ("127.1:80", "127.0.0.1:80", "stockade.loopback"),
        ("[::1]:80", "[::1]:80", "stockade.loopback"),
        (
            "[::ffff:169.254.169.254]:80",
            "169.254.169.254:80",
            "stockade.direct_address",
        ),
        ("[fd00:ec2::254]:80", "[fd00:ec2::254]:80", "stockade.direct_address"),
        ("198.18.0.99:443", "198.18.0.99:443", "stockade.unknown_address"),
        ("localhost:80", "localhost:80", "stockade.infrastructure_name"),
        (
            "metadata.google.internal:80",
            "metadata.google.internal:80",
            "stockade.infrastructure_name",
        ),
        (
            "llm.stockade.internal:443",
            "llm.stockade.internal:443",
            "stockade.internal_port",
        ),
        (
            "other.stockade.internal:80",
            "other.stockade.internal:80",
            "stockade.infrastructure_name",
        ),
        (
            "proxy.stockade.internal:3128",
            "proxy.stockade.internal:3128",
            "stockade.proxy",
        ),
    ] {
        let answer = say(&rig, &connect(place)).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains(rule),
            "{place}: {answer}"
        );
        let told = rig.denied().await.pop();
        assert_eq!(told, Some(format!("connect {target} {rule}")), "{place}");
    }
    assert!(rig.internet.dialled().is_empty());
    assert!(rig.names.asked().is_empty(), "a refused name is not looked up");
    // Control: the one that is listed.
    assert!(say(&rig, &connect("a.example.com:80")).await.starts_with(GRANTED));
}

#[tokio::test]
async fn a_name_inside_is_the_one_connect_named() {
    let rig = rig().await;
    let mut stream = to_proxy(&rig).await;
    talk(&mut stream, connect("a.example.com:80").as_bytes()).await;
    let answer = talk(&mut stream, get("b.example.com").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("stockade.name_mismatch"),
        "{answer}"
    );
    // TLS for another server.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for (name, told) in [("b.example.com", "AccessDenied"), ("a.example.com", "eof")] {
        let mut stream = to_proxy(&rig).await;
        assert_eq!(
            talk(&mut stream, connect("a.example.com:443").as_bytes()).await,
            GRANTED
        );
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let error = connector.connect(name, stream).await.unwrap_err();
        // Control: for the same name it is only that nobody answers on that port.
        let refused = error.to_string().contains("AccessDenied");
        assert_eq!(refused, told == "AccessDenied", "{error}");
    }
    let denied = rig.denied().await;
    assert_eq!(
        denied,
        [
            "connect a.example.com:80 stockade.name_mismatch",
            "connect a.example.com:443 stockade.name_mismatch"
        ]
    );
}

#[tokio::test]
async fn a_second_connect_is_refused_wherever_it_stands() {
    let rig = rig().await;
    let evil = connect("evil.example:443");
    // Right behind the first.
    let answer = say(&rig, &format!("{}{evil}", connect("a.example.com:80"))).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("stockade.proxy"),
        "{answer}"
    );
    // Inside of it.
    let mut stream = to_proxy(&rig).await;
    talk(&mut stream, connect("a.example.com:80").as_bytes()).await;
    let answer = talk(&mut stream, connect("b.example.com:80").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("stockade.connect_method"),
        "{answer}"
    );
    // Behind a request, which may be answered first.
    let first = "GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let answer = say(&rig, &format!("{first}{evil}")).await;
    assert!(answer.contains("stockade.connect_method"), "{answer}");
    assert_eq!(
        rig.denied().await,
        [
            "connect proxy.stockade.internal:3128 stockade.proxy",
            "connect a.example.com:80 stockade.connect_method",
            "connect proxy.stockade.internal:3128 stockade.connect_method",
        ]
    );
    assert!(!rig.names.asked().contains(&"evil.example".to_owned()));
}

#[tokio::test]
async fn heads_that_two_proxies_could_read_differently_are_refused() {
    let rig = rig().await;
    let own = "Host: a.example.com:80";
    for (head, rule) in [
        (
            format!("CONNECT a.example.com:80 HTTP/1.1\r\n{own}\r\n{own}\r\n\r\n"),
            "stockade.no_host",
        ),
        (
            "CONNECT a.example.com:80 HTTP/1.1\r\n\r\n".to_owned(),
            "stockade.no_host",
        ),
        (
            format!("CONNECT b.example.com:80 HTTP/1.1\r\n{own}\r\n\r\n"),
            "stockade.name_mismatch",
        ),
        (
            format!("CONNECT u:p@a.example.com:80 HTTP/1.1\r\n{own}\r\n\r\n"),
            "stockade.malformed",
        ),
        (
            format!("CONNECT a.example.com HTTP/1.1\r\n{own}\r\n\r\n"),
            "stockade.malformed",
        ),
        (
            format!("CONNECT http://a.example.com/ HTTP/1.1\r\n{own}\r\n\r\n"),
            "stockade.malformed",
        ),
        (
            format!("CONNECT a.example.com:80 HTTP/1.1\r\n{own}\r\nContent-Length: 3\r\n\r\nabc"),
            "stockade.ambiguous_length",
        ),
        (
            format!("CONNECT a.example.com:80 HTTP/1.1\n{own}\n\n"),
            "stockade.malformed",
        ),
        (
            format!(
                "CONNECT a.example.com:80 HTTP/1.1\r\n{own}\r\nx: {}\r\n\r\n",
                "y".repeat(70_000)
            ),
            "stockade.malformed",
        ),
    ] {
        let answer = say(&rig, &head).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains(rule),
            "{head:.80}: {answer}"
        );
        let told = rig.denied().await.pop();
        assert_eq!(told, Some(format!("connect {PROXY}:3128 {rule}")), "{head:.80}");
    }
    let args = rig.events().await.pop().unwrap().data["args"].clone();
    assert_eq!(
        args["authority"], "a.example.com:80",
        "the record says what was asked for"
    );
    assert!(rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn nothing_but_http1_is_spoken_to_the_proxy() {
    let rig = rig().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (bytes, answer, rule) in [
        (&b"\x05\x01\x00"[..], "\u{5}\u{fffd}", "stockade.socks"),
        (b"\x05\x02\x00\x02", "\u{5}\u{fffd}", "stockade.socks"),
        (b"\x04\x01\x01\xbb\x5d\xb8\xd8\x22\0", "\0[", "stockade.socks"),
        (preface, "HTTP/1.1 400", "stockade.proxy"),
        (b"SSH-2.0-x\r\n", "HTTP/1.1 400", "stockade.proxy"),
    ] {
        let mut stream = to_proxy(&rig).await;
        let heard = talk(&mut stream, bytes).await;
        assert!(heard.starts_with(answer), "{bytes:?}: {heard:?}");
        assert!(is_shut(&mut stream).await);
        assert_eq!(rig.denied().await.pop(), Some(format!("connect {PROXY}:3128 {rule}")));
    }
    // TLS to the proxy itself gets an alert.
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(PROXY).unwrap();
    let stream = to_proxy(&rig).await;
    let error = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    // And no other port is a proxy.
    assert!(is_shut(&mut rig.connect_to(PROXY, 8080).await).await);
    assert_eq!(
        rig.denied().await.pop(),
        Some(format!("connect {PROXY}:8080 stockade.proxy"))
    );
}

#[tokio::test]
async fn the_model_is_reached_through_the_proxy_too() {
    let rig = Plan::level(NetworkLevel::None, &[]).start().await;
    let mut stream = to_proxy(&rig).await;
    talk(&mut stream, connect("llm.stockade.internal:80").as_bytes()).await;
    let answer = talk(&mut stream, get("llm.stockade.internal").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (identity, host, path) = rig.gateway.calls.lock().unwrap().pop().unwrap();
    assert_eq!(
        (identity.run, host.as_str(), path.as_str()),
        (rig.run, "llm.stockade.internal", "/x")
    );
}

#[tokio::test]
async fn a_person_is_asked_about_a_connect_as_about_a_connection() {
    let rig = Plan::custom(&["a.example.com"])
        .rule("ask", "a.example.com", RuleVerdict::Ask)
        .start()
        .await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let mut stream = to_proxy(&rig).await;
    assert_eq!(talk(&mut stream, connect("a.example.com:80").as_bytes()).await, GRANTED);
    let asked = get("a.example.com");
    let (answer, ()) = tokio::join!(
        async {
            let mut answer = [0; 12];
            tokio::io::AsyncWriteExt::write_all(&mut stream, asked.as_bytes())
                .await
                .unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        },
        rig.decide(Decision::Approve),
    );
    assert_eq!(answer, "HTTP/1.1 200");
}

#[tokio::test]
async fn requests_inside_a_connect_are_inspected() {
    let world = World::new().await;
    for (path, status) in [("/head", "200"), ("/denied", "403")] {
        let mut stream = world.rig.connect_to(PROXY, 3128).await;
        assert_eq!(
            talk(&mut stream, connect("a.example.com:443").as_bytes()).await,
            GRANTED
        );
        let connector = TlsConnector::from(Arc::new(world.client(&["http/1.1"])));
        let name = ServerName::try_from("a.example.com").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    assert_eq!(world.origin.seen(), ["GET /head"]);
}
