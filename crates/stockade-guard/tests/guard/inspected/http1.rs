//! Inspected HTTP/1.1, and TLS versions.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use stockade_domain::NetworkLevel;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{World, origin::Setup, pki::Pki, plan, read, to_host, trusting, whole};
use crate::rig::SOON;

#[tokio::test]
async fn each_request_of_a_connection_is_judged() {
    let world = World::new().await;
    let mut sender = world.http1().await;
    let post = Request::post("/echo")
        .header("host", "A.Example.COM:443")
        .body(whole("hello"))
        .unwrap();
    assert_eq!(
        read(sender.send_request(post)).await,
        (StatusCode::OK, "hello".to_owned())
    );
    let (_, head) = read(sender.send_request(to_host("/head"))).await;
    assert!(head.contains("host: a.example.com\n"), "{head}");
    let (status, problem) = read(sender.send_request(to_host("/denied"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(problem.contains("\"rule\":\"paths\""), "{problem}");
    assert_eq!(world.origin.seen(), ["POST /echo", "GET /head"]);
    drop(sender);
    let settled = world.rig.settled(1).await.remove(0);
    assert_eq!(settled["details"]["requests"], 2);
    assert_eq!(settled["details"]["alpn"], "http/1.1");
}

#[tokio::test]
async fn both_versions_of_tls_are_inspected_on_either_side() {
    for (inside, outside) in [
        (&rustls::version::TLS12, &rustls::version::TLS13),
        (&rustls::version::TLS13, &rustls::version::TLS12),
        (&rustls::version::TLS12, &rustls::version::TLS12),
    ] {
        let world = World::with(|setup| setup.versions = vec![outside]).await;
        let config = trusting(&world.authority(), &["h2", "http/1.1"], &[inside]);
        let stream = world.shake_hands("a.example.com", config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(inside.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn the_client_gets_the_protocol_the_server_speaks() {
    let world = World::with(|setup| setup.alpn = vec!["http/1.1"]).await;
    let config = world.client(&["h2", "http/1.1"]);
    let stream = world.shake_hands("a.example.com", config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let error = world
        .shake_hands("a.example.com", world.client(&["h2"]))
        .await
        .unwrap_err();
    assert!(error.contains("AccessDenied"), "{error}");
    assert_eq!(
        world.rig.denied().await,
        ["connect a.example.com:443 stockade.inspection"]
    );
}

#[tokio::test]
async fn the_certificate_is_for_the_one_name_and_short_lived() {
    let world = World::new().await;
    let stream = world.shake_hands("a.example.com", world.client(&[])).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], world.authority());
    // Another connection gets the same one; another run another authority.
    let again = world.shake_hands("a.example.com", world.client(&[])).await.unwrap();
    assert_eq!(again.get_ref().1.peer_certificates().unwrap(), chain);
    let other = World::new().await;
    assert_ne!(other.authority(), world.authority());
    let refused = other.shake_hands("a.example.com", world.client(&[])).await.unwrap_err();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[tokio::test]
async fn what_no_rule_needs_stays_closed() {
    let world = World::new().await;
    // The server's own certificate comes through, which the run's authority did not sign.
    let error = world.shake_hands("b.example.com", world.client(&[])).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let settled = world.rig.settled(1).await.remove(0);
    assert!(settled["details"].get("inspected_by").is_none());
}

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_refused() {
    for (request, rule) in [
        (
            "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "stockade.ambiguous_length",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\r\nHost: a.example.com\r\n\r\n",
            "stockade.no_host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\r\nx: y\r\n folded\r\n\r\n",
            "stockade.malformed",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\nx: y\r\n\r\n",
            "stockade.malformed",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\r\nx: y\rz\r\n\r\n",
            "stockade.malformed",
        ),
        (
            "GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
            "stockade.malformed",
        ),
        (
            "CONNECT b.example.com:443 HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
            "stockade.connect_method",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "stockade.malformed"),
    ] {
        let world = World::new().await;
        let mut stream = world.shake_hands("a.example.com", world.client(&[])).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains(rule),
            "{request}: {answer}"
        );
        assert_eq!(
            world.rig.denied().await.pop(),
            Some(format!("connect a.example.com:443 {rule}"))
        );
        assert!(world.origin.seen().is_empty());
    }
    let world = World::new().await;
    // Control: absolute form that agrees passes, in origin form.
    let mut stream = world.shake_hands("a.example.com", world.client(&[])).await.unwrap();
    let request = "GET https://a.example.com/head HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.contains("GET /head HTTP/1.1\n"), "{answer}");
}

#[tokio::test]
async fn a_connection_the_server_closed_is_opened_anew_through_tls() {
    let world = World::new().await;
    let mut sender = world.http1().await;
    for _ in 0..2 {
        assert_eq!(read(sender.send_request(to_host("/bye"))).await.1, "bye");
        timeout(SOON, sender.ready()).await.unwrap().unwrap();
    }
    assert_eq!(world.rig.internet.dialled().len(), 2);
    let settled = world.rig.settled(1).await.remove(0);
    assert_eq!(settled["details"]["requests"], 1);
    assert_eq!(world.rig.allowed().await.len(), 2, "each connection is admitted");
}

#[tokio::test]
async fn requests_in_the_clear_are_judged_too() {
    let world = World::new().await;
    let plain = Setup::plain().start().await;
    world.rig.host("a.example.com", "93.184.216.34", 80, plain.address);
    let stream = world.rig.connect_to("a.example.com", 80).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(read(sender.send_request(to_host("/head"))).await.0, StatusCode::OK);
    let (status, problem) = read(sender.send_request(to_host("/denied"))).await;
    assert!(
        status == StatusCode::FORBIDDEN && problem.contains("paths"),
        "{problem}"
    );
    assert_eq!(plain.seen(), ["GET /head"]);
    assert_eq!(
        world.rig.denied().await,
        ["request GET http://a.example.com:80/denied paths"]
    );
}

#[tokio::test]
async fn a_bare_address_is_no_way_around_the_rules_about_its_name() {
    let pki = Pki::new();
    let mut plan = plan(&pki);
    plan.environment.network = NetworkLevel::Full;
    plan.environment.acknowledge_full_network = true;
    let world = World::of(plan, Setup::tls(pki.server(&["a.example.com"]))).await;
    let plain = Setup::plain().start().await;
    world.rig.host("a.example.com", "93.184.216.34", 80, plain.address);
    let stream = world.rig.connect("93.184.216.34:80").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(read(sender.send_request(to_host("/head"))).await.0, StatusCode::OK);
    assert_eq!(
        read(sender.send_request(to_host("/denied"))).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(plain.seen(), ["GET /head"]);

    let stream = world.rig.connect("93.184.216.34:443").await;
    let name = rustls::pki_types::ServerName::try_from("a.example.com").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(world.client(&["http/1.1"])));
    let stream = connector.connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(read(sender.send_request(to_host("/head"))).await.0, StatusCode::OK);
    assert_eq!(
        read(sender.send_request(to_host("/denied"))).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(world.origin.seen(), ["GET /head"]);
}
