//! WebSockets, in the clear and inside TLS.

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{Body, World, origin::Setup, whole};
use crate::rig::{Plan, SOON};

fn asking(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "a.example.com")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13")
        .body(whole(""))
        .unwrap()
}

/// Asks for a socket, and talks over it.
async fn converse(mut sender: hyper::client::conn::http1::SendRequest<Body>) {
    let mut response = timeout(SOON, sender.send_request(asking("/ws")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "tested");
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let mut words = [0; 7];
    socket.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"welcome");
    // No HTTP any more: anything passes, in any piece.
    for words in [&b"\x81\x05hello"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\r\n\n"] {
        socket.write_all(words).await.unwrap();
        let mut echo = vec![0; words.len()];
        timeout(SOON, socket.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(echo, words);
    }
    socket.shutdown().await.unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_socket_inside_tls_echoes() {
    let world = World::new().await;
    converse(world.http1().await).await;
    let settled = world.rig.settled(1).await.remove(0);
    let details = &settled["details"];
    assert_eq!(details["websocket"], true);
    assert!(
        details["bytes_up"].as_u64() > Some(30) && details["ended"] == "closed",
        "{details}"
    );
}

#[tokio::test]
async fn a_socket_in_the_clear_echoes() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    let origin = Setup::plain().start().await;
    rig.host("a.example.com", "93.184.216.34", 80, origin.address);
    let stream = rig.connect_to("a.example.com", 80).await;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    converse(sender).await;
    assert_eq!(rig.settled(1).await[0]["details"]["websocket"], true);
}

#[tokio::test]
async fn a_socket_to_a_denied_path_is_refused() {
    let world = World::new().await;
    let mut sender = world.http1().await;
    let response = timeout(SOON, sender.send_request(asking("/denied")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(world.origin.seen().is_empty());
}

#[tokio::test]
async fn no_other_protocol_is_switched_to() {
    let world = World::new().await;
    let mut sender = world.http1().await;
    let mut request = asking("/head");
    request.headers_mut().insert("upgrade", "h2c".parse().unwrap());
    let response = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    let head = response.into_body().collect().await.unwrap().to_bytes();
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("GET /head") && !head.contains("upgrade"), "{head}");
}
