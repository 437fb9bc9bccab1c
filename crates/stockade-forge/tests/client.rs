//! What the client does with servers that are not as they should be.

use bytes::Bytes;
use http::{Request, header};
use stockade_forge::{ForgeClient, ForgeSetupError, MAX_ANSWER};
use stockade_ports::ForgeError;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Answers one request with these bytes and gives what it was sent.
async fn server(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let told = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 << 10];
        let count = stream.read(&mut buffer).await.unwrap();
        let _ = stream.write_all(&answer).await;
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    });
    (origin, told)
}

fn client(base: &str) -> ForgeClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ForgeClient::new(base, []).unwrap()
}

fn get(path: &str) -> Request<Bytes> {
    let request = Request::get(path).header(header::AUTHORIZATION, "Bearer canary");
    request.body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_request_goes_below_the_base_and_its_answer_comes_whole() {
    let (origin, told) = server(b"HTTP/1.1 201 Created\r\nx-one: 1\r\ncontent-length: 2\r\n\r\nok".to_vec()).await;
    let answer = client(&format!("{origin}/api/v3/"))
        .send_below(get("/repos?x=%20"))
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-one"]),
        (201, &"1".parse().unwrap())
    );
    assert_eq!(answer.body(), "ok");
    let told = told.await.unwrap().to_ascii_lowercase();
    assert!(
        told.starts_with("get /api/v3/repos?x=%20 http/1.1\r\n") && told.contains("bearer canary"),
        "{told}"
    );
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let (elsewhere, told) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let redirect = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}/\r\ncontent-length: 0\r\n\r\n");
    let (origin, _) = server(redirect.into_bytes()).await;
    let answer = client(&origin).send_below(get("/")).await.unwrap();
    assert_eq!(answer.status(), 307);
    assert!(!told.is_finished(), "the redirect was followed");
    // The control: whoever asks there is heard.
    client(&elsewhere).send_below(get("/")).await.unwrap();
    assert!(told.await.unwrap().contains("canary"));
}

#[tokio::test]
async fn no_answer_a_broken_one_and_a_large_one_are_told_apart() {
    let refused = client("http://127.0.0.1:1").send_below(get("/")).await.unwrap_err();
    assert!(
        matches!(&refused, ForgeError::Unreachable(why) if why.contains("refused")),
        "{refused}"
    );
    let (origin, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_vec()).await;
    let broken = client(&origin).send_below(get("/")).await.unwrap_err();
    assert!(matches!(broken, ForgeError::Unreachable(_)), "{broken}");
    let length = MAX_ANSWER + 1;
    let mut large = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    large.resize(large.len() + length as usize, b'x');
    let (origin, _) = server(large).await;
    let large = client(&origin).send_below(get("/")).await.unwrap_err();
    assert!(matches!(large, ForgeError::TooLarge(MAX_ANSWER)), "{large}");
}

#[tokio::test]
async fn it_goes_to_its_own_origin_only_and_never_far_without_tls() {
    let (origin, _) = server(Vec::new()).await;
    for other in ["http://127.0.0.1:1/", "https://api.example/", "/relative"] {
        let refused = client(&origin).send(get(other)).await.unwrap_err();
        assert!(matches!(refused, ForgeError::Refused { .. }), "{other}: {refused}");
    }
    for address in [
        "http://api.example",
        "ftp://127.0.0.1",
        "api.example",
        "https://me@api.example",
        "",
    ] {
        assert!(
            matches!(ForgeClient::new(address, []), Err(ForgeSetupError::Address(_))),
            "{address}"
        );
    }
}
