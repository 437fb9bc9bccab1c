use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::TryStreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

type Seen = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

/// An endpoint that keeps what it is sent and answers this.
async fn endpoint(status: StatusCode, header: (&'static str, &'static str)) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    kept.lock().unwrap().push((parts, body));
                    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
                    *response.status_mut() = status;
                    response
                        .headers_mut()
                        .insert(header.0, HeaderValue::from_static(header.1));
                    response
                        .headers_mut()
                        .insert("set-cookie", HeaderValue::from_static("a=b"));
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, seen)
}

/// An endpoint that sends these bytes after a request's head, then waits or closes.
async fn raw(answer: &'static [u8], hold: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(answer).await.unwrap();
        if hold {
            std::future::pending::<()>().await;
        }
    });
    url
}

fn config(kind: UpstreamKind, url: &str) -> UpstreamConfig {
    UpstreamConfig {
        name: "test".to_owned(),
        kind,
        base_url: url.to_owned(),
        api_key: Some(SecretString::from("sk-very-secret")),
        idle_timeout: Duration::from_secs(10),
    }
}

fn request(wire: Wire) -> ModelRequest {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer client"),
        ("x-api-key", "client"),
        ("cookie", "client"),
        ("accept-encoding", "gzip"),
        ("host", "llm.stockade.internal"),
        ("content-length", "999"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("anthropic-beta", "one"),
        ("x-of-tomorrow", "kept"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    ModelRequest {
        wire,
        query: Some("beta=true".to_owned()),
        headers,
        body: Bytes::from_static(b"{ \"model\":\"m\",\"n\":1.50 }"),
    }
}

async fn sent(kind: UpstreamKind, wire: Wire, path: &str) -> (http::request::Parts, Bytes) {
    let (url, seen) = endpoint(StatusCode::OK, ("x-answer", "kept")).await;
    let provider = UpstreamProvider::new(config(kind, &format!("{url}{path}"))).unwrap();
    let answer = provider.call(request(wire)).await.unwrap();
    assert_eq!(
        (answer.status, &answer.headers["x-answer"]),
        (StatusCode::OK, &HeaderValue::from_static("kept"))
    );
    assert!(!answer.headers.contains_key("set-cookie"));
    assert_eq!(answer.body.try_collect::<Vec<_>>().await.unwrap().concat(), b"{}");
    seen.lock().unwrap().pop().unwrap()
}

#[tokio::test]
async fn an_anthropic_endpoint_gets_the_body_unchanged_and_its_own_key() {
    for path in ["", "/", "/v1", "/v1/"] {
        let (parts, body) = sent(UpstreamKind::Anthropic, Wire::AnthropicMessages, path).await;
        assert_eq!(parts.uri, "/v1/messages?beta=true");
        assert_eq!(body, "{ \"model\":\"m\",\"n\":1.50 }");
        assert_eq!(parts.headers["x-api-key"], "sk-very-secret");
        assert_eq!(parts.headers["anthropic-version"], "2023-06-01");
        assert_eq!(
            (&parts.headers["anthropic-beta"], &parts.headers["x-of-tomorrow"]),
            (&"one".parse().unwrap(), &"kept".parse().unwrap())
        );
        for gone in ["authorization", "cookie", "accept-encoding", "x-hop"] {
            assert!(!parts.headers.contains_key(gone), "{gone}");
        }
    }
}

#[tokio::test]
async fn an_openai_endpoint_gets_both_wires_and_a_prefix_is_kept() {
    let (parts, _) = sent(UpstreamKind::Openai, Wire::OpenaiChat, "/proxy/v1").await;
    assert_eq!(parts.uri, "/proxy/v1/chat/completions?beta=true");
    assert_eq!(parts.headers["authorization"], "Bearer sk-very-secret");
    assert!(!parts.headers.contains_key("x-api-key"));
    let (parts, _) = sent(UpstreamKind::Openai, Wire::OpenaiResponses, "/proxy").await;
    assert_eq!(parts.uri, "/proxy/v1/responses?beta=true");
    let provider = UpstreamProvider::new(config(UpstreamKind::Openai, "http://127.0.0.1:1")).unwrap();
    let foreign = provider.call(request(Wire::AnthropicMessages)).await.err().unwrap();
    assert_eq!(foreign.class, FailureClass::Terminal);
}

#[tokio::test]
async fn an_error_of_the_endpoint_is_an_answer_and_a_redirect_is_none() {
    let (url, _) = endpoint(StatusCode::TOO_MANY_REQUESTS, ("retry-after", "3")).await;
    let provider = UpstreamProvider::new(config(UpstreamKind::Openai, &url)).unwrap();
    let busy = provider.call(request(Wire::OpenaiChat)).await.unwrap();
    assert_eq!(
        (busy.status.as_u16(), &busy.headers["retry-after"]),
        (429, &HeaderValue::from_static("3"))
    );
    let (elsewhere, seen) = endpoint(StatusCode::OK, ("x", "y")).await;
    let location: &'static str = Box::leak(elsewhere.into_boxed_str());
    let (url, _) = endpoint(StatusCode::TEMPORARY_REDIRECT, ("location", location)).await;
    let provider = UpstreamProvider::new(config(UpstreamKind::Openai, &url)).unwrap();
    let moved = provider.call(request(Wire::OpenaiChat)).await.err().unwrap();
    assert_eq!(moved.class, FailureClass::Terminal);
    assert!(moved.message.contains("redirect"), "{moved}");
    assert!(seen.lock().unwrap().is_empty(), "the key went nowhere else");
}

#[tokio::test]
async fn failures_are_classed_by_what_they_may_have_left_behind() {
    let call = async |url: &str| {
        let mut config = config(UpstreamKind::Openai, url);
        config.idle_timeout = Duration::from_millis(200);
        let provider = UpstreamProvider::new(config).unwrap();
        match provider.call(request(Wire::OpenaiChat)).await {
            Ok(answer) => answer.body.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        }
    };
    let unreached = call("http://127.0.0.1:1").await;
    assert_eq!(unreached.class, FailureClass::Transient, "{unreached}");
    let silent = call(&raw(b"", true).await).await;
    assert_eq!(silent.class, FailureClass::Unknown, "{silent}");
    assert!(silent.message.contains("silent"), "{silent}");
    let closed = call(&raw(b"", false).await).await;
    assert_eq!(closed.class, FailureClass::Unknown, "{closed}");
    let cut = call(&raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf", false).await).await;
    assert_eq!(cut.class, FailureClass::Unknown, "{cut}");
    assert!(cut.message.contains("broke off"), "{cut}");
    for error in [unreached, silent, closed, cut] {
        assert!(
            !error.to_string().contains("secret") && !error.to_string().contains("http://"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_piece_is_passed_on_before_the_next_one_exists() {
    let url = raw(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        true,
    )
    .await;
    let provider = UpstreamProvider::new(config(UpstreamKind::Openai, &url)).unwrap();
    let mut answer = provider.call(request(Wire::OpenaiChat)).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "first");
}

#[test]
fn what_cannot_work_is_refused_at_once_and_without_the_key() {
    let refused = |url: &str, key: &str| {
        let mut config = config(UpstreamKind::Openai, url);
        config.api_key = Some(SecretString::from(key));
        UpstreamProvider::new(config).unwrap_err().to_string()
    };
    for url in [
        "",
        "host",
        "ftp://host",
        "https://user:pass@host",
        "https://host/?a=b",
        "unix:/x",
    ] {
        let error = refused(url, "sk-very-secret");
        assert!(error.contains("base_url") && !error.contains("pass"), "{error}");
    }
    assert!(refused("http://host", " ").contains("key is empty"));
    let odd = refused("http://host", "sk-very\nsecret");
    assert!(odd.contains("characters") && !odd.contains("secret"), "{odd}");
}

#[test]
fn a_provider_does_not_print_its_key() {
    let config = config(UpstreamKind::Anthropic, "http://host");
    assert!(!format!("{config:?}").contains("very-secret"));
    let provider = UpstreamProvider::new(config).unwrap();
    assert!(!format!("{provider:?}").contains("very-secret"));
}
