//! HTTP byte by byte, for requests that no proper client would send.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::server::Server;

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// Fails the test unless this is that problem (RFC 9457).
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head
                .to_lowercase()
                .contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(
            problem["type"]
                .as_str()
                .unwrap_or_default()
                .ends_with(&format!("/{code}")),
            "{problem}"
        );
        assert!(!problem["detail"].as_str().unwrap_or_default().is_empty(), "{problem}");
        problem
    }
}

/// Sends a request with the server's token.
pub(crate) async fn send(server: &Server, method: &str, path: &str, body: &[u8]) -> Reply {
    send_as(server, &server.token, method, path, body).await
}

/// Sends a request with another token.
pub(crate) async fn send_as(server: &Server, token: &str, method: &str, path: &str, body: &[u8]) -> Reply {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        server.authority(),
        body.len()
    );
    exchange(server.authority(), &[head.as_bytes(), body].concat()).await
}

/// Sends bytes and reads the answer.
pub(crate) async fn exchange(authority: &str, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    // A server that refuses a large body early may close before all of it was sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    read.expect("an answer within a minute").ok();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Reply {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
