//! Requests with their whole URL.

use stockade_domain::NetworkLevel;

use super::{PROXY, rig, say, to_proxy};
use crate::{
    rig::{Plan, talk},
    world::http_server,
};

fn whole(url: &str, host: &str) -> String {
    format!(
        "GET {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    )
}

#[tokio::test]
async fn one_connection_carries_requests_to_many_hosts() {
    let rig = rig().await;
    let mut stream = to_proxy(&rig).await;
    for host in ["a.example.com", "a.example.com", "b.example.com", "a.example.com"] {
        let answer = talk(&mut stream, whole(&format!("http://{host}/x?y"), host).as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x?y HTTP/1.1"),
            "{answer}"
        );
        let lower = answer.to_lowercase();
        assert!(
            lower.contains(&format!("host: {host}\r\n")) && !lower.contains("proxy-"),
            "{answer}"
        );
    }
    drop(stream);
    let requests: Vec<_> = rig
        .settled(3)
        .await
        .iter()
        .map(|s| s["details"]["requests"].clone())
        .collect();
    assert_eq!(
        requests,
        [2, 1, 1],
        "a host that is asked again at once is asked over the same connection"
    );
}

#[tokio::test]
async fn each_request_gets_the_verdict_of_its_own_host() {
    let rig = rig().await;
    for (url, host, target, rule) in [
        ("http://evil.example/", "evil.example", "evil.example:80", "env.custom"),
        (
            "http://a.example.com:8080/",
            "a.example.com:8080",
            "a.example.com:8080",
            "env.port",
        ),
        (
            "http://93.184.216.34/",
            "93.184.216.34",
            "93.184.216.34:80",
            "stockade.direct_address",
        ),
        ("http://0x7f.1/", "127.0.0.1", "127.0.0.1:80", "stockade.loopback"),
        (
            "http://[::ffff:10.0.0.1]/",
            "10.0.0.1",
            "10.0.0.1:80",
            "stockade.direct_address",
        ),
        (
            "http://198.18.0.99/",
            "198.18.0.99",
            "198.18.0.99:80",
            "stockade.unknown_address",
        ),
        (
            "http://proxy.stockade.internal:3128/",
            "proxy.stockade.internal:3128",
            "proxy.stockade.internal:3128",
            "stockade.proxy",
        ),
        (
            "http://llm.stockade.internal:8080/",
            "llm.stockade.internal:8080",
            "llm.stockade.internal:8080",
            "stockade.internal_port",
        ),
    ] {
        let answer = say(&rig, &whole(url, host)).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains(rule),
            "{url}: {answer}"
        );
        assert_eq!(
            rig.denied().await.pop(),
            Some(format!("connect {target} {rule}")),
            "{url}"
        );
    }
    assert!(rig.internet.dialled().is_empty() && rig.names.asked().is_empty());
    // Control.
    assert!(
        say(&rig, &whole("http://a.example.com/", "a.example.com"))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn what_names_no_one_place_is_refused() {
    let rig = rig().await;
    for (request, rule) in [
        ("GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n".to_owned(), "stockade.proxy"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example.com\r\n\r\n".to_owned(), "stockade.proxy"),
        (whole("http://a.example.com/", "b.example.com"), "stockade.name_mismatch"),
        (whole("https://a.example.com/", "a.example.com"), "stockade.name_mismatch"),
        (whole("http://u@a.example.com/", "a.example.com"), "stockade.malformed"),
        (whole("ftp://a.example.com/", "a.example.com"), "stockade.malformed"),
        (whole("http://a.example.com/#x", "a.example.com"), "stockade.malformed"),
        ("GET http://a.example.com/ HTTP/1.1\r\n\r\n".to_owned(), "stockade.no_host"),
        (
            "POST http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "stockade.ambiguous_length",
        ),
    ] {
        let answer = say(&rig, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(rule), "{request}: {answer}");
        assert_eq!(rig.denied().await.pop(), Some(format!("connect {PROXY}:3128 {rule}")), "{request}");
    }
    assert!(rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn a_session_that_is_being_measured_lets_nothing_through_its_proxy() {
    let plan = Plan {
        closed: true,
        ..Plan::custom(&["a.example.com"])
    };
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let asked = whole("http://a.example.com/", "a.example.com");
    assert!(!say(&rig, &asked).await.starts_with("HTTP/1.1 200"));
    let session = rig.session.as_ref().unwrap();
    assert_eq!(session.tally().allowed, ["a.example.com"]);
    assert!(rig.internet.dialled().is_empty());
    session.open();
    assert!(say(&rig, &asked).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_gateway_gets_the_path_of_a_whole_url() {
    let rig = Plan::level(NetworkLevel::None, &[]).start().await;
    let answer = say(
        &rig,
        &whole("http://llm.stockade.internal/v1/x?y", "llm.stockade.internal"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, host, path) = rig.gateway.calls.lock().unwrap().pop().unwrap();
    assert_eq!((host.as_str(), path.as_str()), ("llm.stockade.internal", "/v1/x?y"));
}
