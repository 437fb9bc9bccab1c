//! Inspected HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use stockade_domain::EventType;
use tokio::{sync::mpsc, time::timeout};

use super::{Body, World, a_while, read, to, whole};
use crate::rig::SOON;

#[tokio::test]
async fn several_requests_are_under_way_at_once() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    // Neither is answered before both have arrived.
    let (one, two) = (sender.send_request(to("/both")), sender.send_request(to("/both")));
    let ((one, _), (two, _)) = tokio::join!(read(one), read(two));
    assert_eq!((one, two), (StatusCode::OK, StatusCode::OK));
    let (_, head) = read(sender.send_request(to("/head?q=1"))).await;
    assert!(head.starts_with("GET https://a.example.com/head?q=1 HTTP/2"), "{head}");
    drop(sender);
    let settled = world.rig.settled(1).await.remove(0);
    let details = &settled["details"];
    assert_eq!(details["requests"], 3);
    assert_eq!(details["inspected_by"], "paths");
    assert_eq!(details["alpn"], "h2");
    assert_eq!(world.rig.internet.dialled().len(), 1, "one connection outwards");
    assert_eq!(
        world.rig.allowed().await,
        ["connect a.example.com:443 env.custom:a.example.com"]
    );
}

#[tokio::test]
async fn a_denied_request_is_answered_while_others_go_on() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    let (feed, fed) = mpsc::channel::<Bytes>(1);
    let body = StreamBody::new(futures::stream::unfold(fed, |mut fed| async {
        fed.recv().await.map(|bytes| (Ok(Frame::data(bytes)), fed))
    }));
    let post = Request::post("https://a.example.com/echo")
        .body(Body::new(body))
        .unwrap();
    let response = timeout(SOON, sender.send_request(post)).await.unwrap().unwrap();
    let mut echo = response.into_body();

    let (status, problem) = read(sender.send_request(to("/denied/x?token=1"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
    assert_eq!(problem["rule"], "paths");
    assert_eq!(problem["detail"], "GET /denied/x is not for agents");

    // The stream that was open before goes on, both ways.
    for words in ["one", "two"] {
        feed.send(Bytes::from(words)).await.unwrap();
        let frame = timeout(SOON, echo.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), words);
    }
    assert!(!world.origin.seen().iter().any(|seen| seen.contains("denied")));
    assert_eq!(
        world.rig.denied().await,
        ["request GET https://a.example.com:443/denied/x paths"]
    );
    let event = world.rig.events().await;
    let event = event.iter().find(|e| e.kind == EventType::EgressDenied).unwrap();
    assert_eq!(event.data["args"]["method"], "GET");
    assert!(
        !event.data.to_string().contains("token"),
        "the query is not written down"
    );
}

#[tokio::test]
async fn trailers_go_both_ways_as_grpc_needs() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from("message"))), Ok(Frame::trailers(trailers))];
    let call = Request::post("https://a.example.com/call")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(futures::stream::iter(frames))))
        .unwrap();
    let response = timeout(SOON, sender.send_request(call)).await.unwrap().unwrap();
    let answered = response.into_body().collect().await.unwrap();
    let trailers = answered.trailers().expect("trailers").clone();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-te"], "trailers");
    assert_eq!(trailers["x-sum"], "42");
    assert_eq!(answered.to_bytes(), "message");
}

#[tokio::test]
async fn large_bodies_stream_and_a_slow_reader_holds_only_itself_up() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    let slow = timeout(SOON, sender.send_request(to("/large"))).await.unwrap().unwrap();
    a_while().await;
    // What nobody reads is not taken from the server: far less than its sixteen MiB came.
    let (status, _) = read(sender.send_request(to("/head"))).await;
    assert_eq!(status, StatusCode::OK);
    let post = Request::post("https://a.example.com/count")
        .body(whole(vec![1; 5 << 20]))
        .unwrap();
    assert_eq!(read(sender.send_request(post)).await.1, (5 << 20).to_string());
    let body = timeout(SOON, slow.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(body.to_bytes().len(), 16 << 20);
    drop(sender);
    let settled = world.rig.settled(1).await.remove(0);
    assert!(settled["details"]["bytes_down"].as_u64() > Some(16 << 20), "{settled}");
    assert!(settled["details"]["bytes_up"].as_u64() > Some(5 << 20), "{settled}");
}

#[tokio::test]
async fn a_request_for_another_host_is_refused_and_the_connection_goes_on() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    // Both names are allowed, and the certificate has both.
    let other = Request::get("https://b.example.com/x").body(whole("")).unwrap();
    let (status, problem) = read(sender.send_request(other)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{problem}");
    let two_names = Request::get("https://a.example.com/x")
        .header("host", "b.example.com")
        .body(whole(""))
        .unwrap();
    assert_eq!(read(sender.send_request(two_names)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(read(sender.send_request(to("/fine"))).await.0, StatusCode::OK);
    assert_eq!(world.origin.seen(), ["GET /fine"]);
    assert_eq!(
        world.rig.denied().await,
        ["connect a.example.com:443 stockade.name_mismatch"; 2]
    );
    let events = world.rig.events().await;
    let event = events.iter().find(|e| e.kind == EventType::EgressDenied).unwrap();
    assert_eq!(event.data["args"]["authority"], json!("b.example.com:443"));
}

#[tokio::test]
async fn a_tunnel_inside_http2_is_refused() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    let connect = Request::connect("b.example.com:443").body(whole("")).unwrap();
    let answered = timeout(SOON, sender.send_request(connect)).await.unwrap();
    let status = answered.map(|response| response.status());
    assert!(matches!(status, Ok(StatusCode::BAD_REQUEST)), "{status:?}");
    assert_eq!(
        world.rig.denied().await,
        ["connect a.example.com:443 stockade.connect_method"]
    );
    assert_eq!(read(sender.send_request(to("/fine"))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn closing_the_session_ends_streams_that_are_open() {
    let world = World::new().await;
    let mut sender = world.http2().await;
    let waiting = sender.send_request(to("/never"));
    let waiting = tokio::spawn(waiting);
    a_while().await;
    world.rig.session.as_ref().unwrap().close().await;
    assert!(timeout(SOON, waiting).await.unwrap().unwrap().is_err());
    let settled = world.rig.settled(1).await.remove(0);
    assert_eq!(settled["details"]["ended"], "sandbox ended");
}
