//! The edge: hosts, origins, sizes, patience, and an orderly end.

use std::time::{Duration, Instant};

use serde_json::json;
use stockade_gateway::HttpLimits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{Harness, catalog},
    raw::{Call, PATIENCE},
};

#[tokio::test]
async fn names_that_are_not_ours_are_refused() {
    let limits = HttpLimits {
        allowed_hosts: vec!["box.example".to_owned()],
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    for (host, status) in [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("localhost.evil.example", 421),
        ("169.254.169.254", 421),
        ("<none>", 400),
        ("a b", 400),
        ("", 400),
        ("localhost", 200),
        ("[::1]:7070", 200),
        ("box.example", 200),
    ] {
        for path in ["/healthz", "/"] {
            let answer = harness.call(Call::get(path).header("Host", host)).await;
            assert_eq!(answer.status, status, "{host} {path}: {}", answer.text());
        }
    }
    let twice = Call::get("/healthz")
        .header("Host", "localhost")
        .header("Host", "evil.example");
    assert_eq!(harness.call(twice).await.status, 400);
    let absolute = Call::new("GET", "http://evil.example/healthz").header("Host", "localhost");
    assert_eq!(harness.call(absolute).await.status, 400);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let harness = Harness::start().await;
    let own = format!("http://{}", harness.address);
    for (origin, status) in [(own.as_str(), 200), ("http://evil.example", 403), ("null", 403)] {
        let answer = harness.call(Call::get("/v1/tasks").header("Origin", origin)).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    let answer = harness
        .call(Call::get("/v1/tasks").header("Sec-Fetch-Site", "cross-site"))
        .await;
    assert_eq!(answer.code(), "foreign_origin");
}

#[tokio::test]
async fn every_answer_says_how_it_may_be_used() {
    let harness = Harness::start().await;
    for answer in [
        harness.get("/v1/tasks").await,
        harness.get("/nowhere").await,
        Call::get("/").send(harness.address).await,
        Call::get("/")
            .header("Host", "evil.example")
            .send(harness.address)
            .await,
    ] {
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    }
}

#[tokio::test]
async fn large_bodies_are_refused_and_the_client_learns_why() {
    let limits = HttpLimits {
        body_bytes: 1000,
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let fits = json!({ "prompt": "x".repeat(900) });
    assert_eq!(harness.post("/v1/tasks", fits).await.status, 201);
    for size in [1001, 3000, 200_000] {
        let answer = harness.post("/v1/tasks", json!({ "prompt": "x".repeat(size) })).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, "body_too_large"),
            "{size}"
        );
        assert_eq!(answer.json()["limit"], 1000);
    }
    // A body of unannounced length is measured as it comes.
    let chunk = "x".repeat(1500);
    let chunked = Call::new("POST", "/v1/tasks")
        .header("Content-Type", "application/json")
        .header("Content-Length", "<none>")
        .header("Transfer-Encoding", "chunked")
        .bytes(format!("5dc\r\n{chunk}\r\n0\r\n\r\n").as_bytes());
    assert_eq!(harness.call(chunked).await.code(), "body_too_large");
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let limits = HttpLimits {
        head_timeout: Duration::from_millis(150),
        body_timeout: Duration::from_millis(150),
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let begun = Instant::now();
    let mut slow = TcpStream::connect(harness.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        .await
        .unwrap();
    let mut silent = TcpStream::connect(harness.address).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut rest)).await.unwrap().ok();
    timeout(PATIENCE, silent.read_to_end(&mut rest)).await.unwrap().ok();
    assert!(begun.elapsed() >= Duration::from_millis(140));
    let body = Call::new("POST", "/v1/tasks")
        .header("Content-Type", "application/json")
        .header("Content-Length", "100")
        .bytes(b"{");
    assert_eq!(harness.call(body).await.code(), "request_timeout");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let limits = HttpLimits {
        connections: 2,
        ..HttpLimits::default()
    };
    let harness = Harness::with(catalog(), limits).await;
    let held = [
        TcpStream::connect(harness.address).await.unwrap(),
        TcpStream::connect(harness.address).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = tokio::spawn(Call::get("/healthz").send(harness.address));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!third.is_finished());
    drop(held);
    assert_eq!(timeout(PATIENCE, third).await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let harness = Harness::start().await;
    let mut many = Call::get("/healthz");
    for n in 0..100 {
        many = many.header(&format!("X-{n}"), "1");
    }
    assert_eq!(many.send(harness.address).await.status, 431);
    // The control: some headers are fine.
    let some = Call::get("/healthz").header("X-Large", &"x".repeat(10_000));
    assert_eq!(some.send(harness.address).await.status, 200);
    // The gateway stops reading, so writing may fail and the answer may be lost to a reset.
    let mut socket = TcpStream::connect(harness.address).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(1 << 20));
    let _ = timeout(PATIENCE, socket.write_all(head.as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_lets_requests_finish() {
    let mut harness = Harness::start().await;
    let (_, run) = harness.queued().await;
    let stream = tokio::spawn(
        Call::get(&format!("/v1/runs/{run}/events"))
            .header("Accept", "text/event-stream")
            .token(&harness.token)
            .send(harness.address),
    );
    let idle = TcpStream::connect(harness.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stream.is_finished() && !harness.served.is_finished());
    let begun = Instant::now();
    harness.stop.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, &mut harness.served).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let told = timeout(PATIENCE, stream).await.unwrap().unwrap();
    assert!(told.text().contains("run.queued"));
    assert!(TcpStream::connect(harness.address).await.is_err());
    drop(idle);
}
