//! The first bytes of a connection: what it speaks and whom it names.

use std::time::Duration;

use bytes::BytesMut;
use rustls::server::Acceptor;
use stockade_policy::Fault;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::tls::{Hello, has_ech};

/// Largest ClientHello that is read, in bytes of TLS records.
const MAX_HELLO: usize = 64 * 1024;
/// Content type "handshake" of a TLS record (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A ClientHello.
    Tls(Hello),
    /// An HTTP/1 request line.
    Http,
    /// Other bytes.
    Other,
    /// No bytes in time.
    Silent,
    /// Bytes that begin like something known and are not.
    Faulty(Fault),
    /// The client closed without a byte.
    Closed,
}

/// Limits of looking at first bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long the first byte may take.
    pub(crate) first: Duration,
    /// How long the rest may take.
    pub(crate) rest: Duration,
    /// Longest HTTP request line.
    pub(crate) line: usize,
}

/// Reads into `buffer` until it is clear what the connection speaks. Nothing is answered and
/// nothing is lost: everything read is in the buffer. Safe to cancel.
pub(crate) async fn sniff(stream: &mut TcpStream, buffer: &mut BytesMut, patience: Patience) -> Opening {
    if buffer.is_empty() {
        match timeout(patience.first, stream.read_buf(buffer)).await {
            Err(_) => return Opening::Silent,
            Ok(Err(_) | Ok(0)) => return Opening::Closed,
            Ok(Ok(_)) => {}
        }
    }
    let rest = async {
        loop {
            if let Some(opening) = recognise(buffer, patience.line) {
                return opening;
            }
            if !matches!(stream.read_buf(buffer).await, Ok(bytes) if bytes > 0) {
                return unfinished(buffer);
            }
        }
    };
    match timeout(patience.rest, rest).await {
        Ok(opening) => opening,
        Err(_) => unfinished(buffer),
    }
}

/// What an opening is whose rest never came.
fn unfinished(buffer: &[u8]) -> Opening {
    match buffer.first() {
        Some(&HANDSHAKE) => Opening::Faulty(Fault::MalformedHello),
        _ => Opening::Faulty(Fault::MalformedRequest),
    }
}

/// What these first bytes are; `None` while more are needed.
pub(crate) fn recognise(buffer: &[u8], longest_line: usize) -> Option<Opening> {
    match buffer {
        [HANDSHAKE] => None,
        [HANDSHAKE, 3, ..] => hello(buffer),
        _ => request_line(buffer, longest_line),
    }
}

fn hello(buffer: &[u8]) -> Option<Opening> {
    let mut acceptor = Acceptor::default();
    let mut unread = buffer;
    while !unread.is_empty() {
        if acceptor.read_tls(&mut unread).is_err() {
            return Some(Opening::Faulty(Fault::MalformedHello));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(Opening::Tls(Hello {
                    sni: hello.server_name().map(str::to_owned),
                    alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
                    ech: has_ech(buffer),
                }));
            }
            Ok(None) => {}
            Err(_) => return Some(Opening::Faulty(Fault::MalformedHello)),
        }
    }
    (buffer.len() >= MAX_HELLO).then_some(Opening::Faulty(Fault::MalformedHello))
}

/// `METHOD SP target SP HTTP/1.x` (RFC 9112 3). A method of capitals and hyphens tells it
/// from most other protocols at the first word, the version at the end of the line from all.
fn request_line(buffer: &[u8], longest: usize) -> Option<Opening> {
    // Empty lines before a request are allowed (RFC 9112 2.2).
    let start = buffer.iter().take(4).take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let text = &buffer[start..];
    let word = text
        .iter()
        .take_while(|b| b.is_ascii_uppercase() || **b == b'-')
        .count();
    match text.get(word) {
        None if word <= 24 => return None,
        Some(b' ') if (1..=24).contains(&word) => {}
        _ => return Some(Opening::Other),
    }
    let Some(end) = text.iter().position(|b| *b == b'\n') else {
        return (text.len() > longest).then_some(Opening::Faulty(Fault::HeaderTooLarge));
    };
    let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
    let is_http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    Some(if is_http { Opening::Http } else { Opening::Other })
}

#[cfg(test)]
#[path = "sniff_tests.rs"]
mod tests;
