use tokio::io::AsyncWriteExt;

use crate::{
    rig::{Plan, Rig, is_shut, talk},
    world::http_server,
};

async fn rig() -> Rig {
    let rig = Plan::custom(&["a.example.com", "b.example.com"]).start().await;
    let web = http_server().await;
    rig.host("a.example.com", "93.184.216.34", 80, web);
    rig.host("b.example.com", "93.184.216.34", 80, web);
    rig
}

#[tokio::test]
async fn requests_to_an_allowed_name_pass_one_after_the_other() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let answer = talk(
        &mut stream,
        b"GET /x?y HTTP/1.1\r\nHost: a.example.com\r\nX-Mine: 1\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("GET /x?y HTTP/1.1\r\n") && answer.contains("X-Mine: 1\r\n"),
        "{answer}"
    );
    let post = b"POST /p HTTP/1.1\r\nhost: A.EXAMPLE.com:80\r\ncontent-length: 4\r\n\r\nbody";
    let answer = talk(&mut stream, post).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("body"),
        "{answer}"
    );
    drop(stream);
    let settled = rig.settled(1).await.remove(0);
    assert_eq!(settled["details"]["requests"], 2);
    assert!(settled["details"]["bytes_down"].as_u64() > Some(100));
    assert_eq!(rig.internet.dialled().len(), 1, "one connection outwards");
    assert_eq!(
        rig.allowed().await,
        ["connect a.example.com:80 env.custom:a.example.com"]
    );
}

#[tokio::test]
async fn absolute_form_goes_out_in_origin_form() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let answer = talk(
        &mut stream,
        b"GET http://a.example.com/x HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
    )
    .await;
    assert!(answer.contains("GET /x HTTP/1.1\r\n"), "{answer}");
}

#[tokio::test]
async fn another_host_is_refused_however_it_is_named() {
    let rig = rig().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: b.example.com\r\n\r\n",
        "GET http://b.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
        "GET http://a.example.com/ HTTP/1.1\r\nHost: b.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example.com:8080\r\n\r\n",
        "GET http://a.example.com@b.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
    ] {
        let mut stream = rig.connect_to("a.example.com", 80).await;
        let answer = talk(&mut stream, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("stockade.name_mismatch"),
            "{answer}"
        );
    }
    assert!(rig.internet.dialled().is_empty());
    let denied = rig.denied().await;
    assert!(
        !denied.is_empty()
            && denied
                .iter()
                .all(|d| d == "connect a.example.com:80 stockade.name_mismatch")
    );
}

#[tokio::test]
async fn the_second_request_of_a_connection_is_judged_like_the_first() {
    let rig = rig().await;
    let good = "GET /one HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let bad = "GET /two HTTP/1.1\r\nHost: b.example.com\r\n\r\n";
    let mut stream = rig.connect_to("a.example.com", 80).await;
    assert!(talk(&mut stream, good.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert!(talk(&mut stream, bad.as_bytes()).await.starts_with("HTTP/1.1 403"));
    // Pipelined as well.
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let both = talk(&mut stream, format!("{good}{bad}").as_bytes()).await;
    assert!(
        both.starts_with("HTTP/1.1 200") && both.contains("HTTP/1.1 403") && !both.contains("/two"),
        "{both}"
    );
    assert_eq!(
        rig.denied().await,
        ["connect a.example.com:80 stockade.name_mismatch"; 2]
    );
}

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_refused() {
    let rig = rig().await;
    for (request, rule) in [
        (
            "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "stockade.ambiguous_length",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a.example.com\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            "stockade.ambiguous_length",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "stockade.no_host"),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\r\nHost: b.example.com\r\n\r\n",
            "stockade.no_host",
        ),
        (
            "CONNECT b.example.com:443 HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
            "stockade.connect_method",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example.com\r\n folded: x\r\n\r\n",
            "stockade.malformed",
        ),
    ] {
        let mut stream = rig.connect_to("a.example.com", 80).await;
        let answer = talk(&mut stream, request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains(rule),
            "{request}: {answer}"
        );
        assert!(is_shut(&mut stream).await);
        assert_eq!(
            rig.denied().await.pop(),
            Some(format!("connect a.example.com:80 {rule}"))
        );
    }
    assert!(rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn a_smuggled_second_request_never_reaches_the_server() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let good = "GET /one HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    let smuggled = "POST /two HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /three HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert!(talk(&mut stream, good.as_bytes()).await.contains("GET /one"));
    let answer = talk(&mut stream, smuggled.as_bytes()).await;
    assert!(
        answer.contains("stockade.ambiguous_length") && !answer.contains("/two"),
        "{answer}"
    );
    let settled = rig.settled(1).await.remove(0);
    assert_eq!(settled["details"]["requests"], 1);
}

#[tokio::test]
async fn a_chunked_body_arrives_whole() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a.example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    // The server of the tests reads heads only; what matters is that the request came through.
    let answer = talk(&mut stream, b"0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("transfer-encoding: chunked"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upgrade_is_not_offered_on() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let request = b"GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = talk(&mut stream, request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.to_lowercase().contains("websocket"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let rig = rig().await;
    let mut stream = rig.connect_to("a.example.com", 80).await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a.example.com\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let answer = talk(&mut stream, large.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(rig.denied().await, ["connect a.example.com:80 stockade.malformed"]);
    assert!(rig.internet.dialled().is_empty());
}
