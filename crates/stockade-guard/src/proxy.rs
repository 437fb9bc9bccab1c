//! The proxy for clients that insist on one: `http://proxy.stockade.internal:3128`.
//!
//! Nothing inside needs it, because every connection lands on the Guard anyway. It speaks HTTP/1:
//! CONNECT (RFC 9110 9.3.6), after which the connection is what a direct one to the same host
//! and port would be, and requests with their whole URL (RFC 9112 3.2.2). A destination is read
//! once, by the policy's own reader; what could be read in two ways is refused, and so are SOCKS,
//! TLS and HTTP/2 to the proxy itself.

use std::sync::{Arc, LazyLock};

use ::http::StatusCode;
use bytes::BytesMut;
use serde_json::json;
use stockade_domain::Action;
use stockade_policy::{
    Fault, Host, Protocol, RequestTarget, Scheme,
    egress::{PROXY_HOST, PROXY_PORT},
    target::Http1Target,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    ask,
    connection::{ACCESS_DENIED, goodbye, reset},
    http::{self, MAX_HEADERS, values, whole_head},
    session::Session,
    sniff::{Opening, Patience, sniff},
};

/// The answer to a CONNECT that goes on (RFC 9110 9.3.6).
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// First bytes of SOCKS 4 and 5 (RFC 1928 3), and the answers that no request gets further.
const SOCKS: [(u8, &[u8]); 2] = [(4, &[0, 0x5b, 0, 0, 0, 0, 0, 0]), (5, &[5, 0xff])];

/// A CONNECT that was read and not answered yet.
pub(crate) struct Asked {
    stream: TcpStream,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// What was spoken to the proxy, for a refusal that is not about any other place.
pub(crate) fn action(port: u16) -> Action {
    static HOST: LazyLock<Option<Host>> = LazyLock::new(|| Host::parse(PROXY_HOST).ok());
    let nowhere = Host::from(std::net::IpAddr::from([0, 0, 0, 0]));
    ask::connect(HOST.as_ref().unwrap_or(&nowhere), port, Protocol::Http)
}

/// Serves a connection to the proxy, unless it is a CONNECT: that is given back.
pub(crate) async fn serve(session: &Arc<Session>, mut stream: TcpStream) -> Option<Asked> {
    let mut buffer = BytesMut::with_capacity(4096);
    let config = &session.config;
    let patience = Patience {
        first: config.idle_timeout,
        rest: config.handshake_timeout,
        line: config.max_header_bytes,
    };
    let opening = tokio::select! {
        opening = sniff(&mut stream, &mut buffer, patience) => opening,
        () = session.stop.cancelled() => {
            reset(stream);
            return None;
        }
    };
    let fault = match opening {
        Opening::Closed | Opening::Silent => return None,
        Opening::Http if !begins_with_connect(&buffer) => {
            http::serve_forward(Arc::clone(session), stream, buffer).await;
            return None;
        }
        Opening::Http => match timeout(
            config.handshake_timeout,
            connect(&mut stream, &mut buffer, patience.line),
        )
        .await
        {
            Ok(Ok(RequestTarget { host, port, .. })) => return Some(Asked { stream, host, port }),
            Ok(Err(fault)) => fault,
            Err(_) => Fault::MalformedRequest,
        },
        Opening::Other if SOCKS.iter().any(|(first, _)| buffer.first() == Some(first)) => Fault::Socks,
        Opening::Other | Opening::Tls(_) => Fault::ProxyProtocol,
        Opening::Faulty(fault) => fault,
    };
    let mut refused = ask::faulty(action(PROXY_PORT), fault);
    if let Some(named) = destination_as_written(&buffer) {
        refused = ask::with(refused, "authority", json!(named));
    }
    let denial = session.refuse(refused).await;
    let socks = SOCKS.iter().find(|(first, _)| buffer.first() == Some(first));
    match (socks, buffer.first()) {
        (Some((_, answer)), _) => goodbye(stream, answer).await,
        (None, Some(22)) => goodbye(stream, &ACCESS_DENIED).await,
        (None, _) => {
            let answer = http::problem_bytes(StatusCode::BAD_REQUEST, &denial.rule, &denial.reason);
            goodbye(stream, &answer).await;
        }
    }
    None
}

impl Asked {
    /// Tells the client to go on; from here the connection is one like any other.
    pub(crate) async fn granted(mut self) -> Option<TcpStream> {
        self.stream.write_all(ESTABLISHED).await.ok()?;
        Some(self.stream)
    }

    /// Refuses, and says why.
    pub(crate) async fn refused(self, session: &Session, action: Action) {
        let denial = session.refuse(action).await;
        let answer = http::problem_bytes(StatusCode::FORBIDDEN, &denial.rule, &denial.reason);
        goodbye(self.stream, &answer).await;
    }
}

fn begins_with_connect(buffer: &[u8]) -> bool {
    buffer.trim_ascii_start().starts_with(b"CONNECT ")
}

/// The target of a CONNECT that was refused, for the record.
fn destination_as_written(buffer: &[u8]) -> Option<String> {
    let rest = buffer.trim_ascii_start().strip_prefix(b"CONNECT ")?;
    let end = rest.iter().position(u8::is_ascii_whitespace)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

async fn connect(stream: &mut TcpStream, buffer: &mut BytesMut, longest: usize) -> Result<RequestTarget, Fault> {
    loop {
        if let Some(target) = connect_head(buffer, longest)? {
            return Ok(target);
        }
        if !matches!(stream.read_buf(buffer).await, Ok(bytes) if bytes > 0) {
            return Err(Fault::MalformedRequest);
        }
    }
}

/// Reads the head of a CONNECT; `None` while more of it is to come.
pub(crate) fn connect_head(raw: &[u8], longest: usize) -> Result<Option<RequestTarget>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let Some(length) = whole_head(&mut request, raw, longest)? else {
        return Ok(None);
    };
    if request.method != Some("CONNECT") {
        return Err(Fault::MalformedRequest);
    }
    let target = request.path.unwrap_or_default();
    let hosts = values(&request, "host").into_iter().map(std::str::from_utf8);
    let mut hosts: Vec<&str> = hosts.collect::<Result<_, _>>().map_err(|_| Fault::MalformedRequest)?;
    // HTTP/1.0 has no Host, and some libraries still say CONNECT in it.
    if hosts.is_empty() && request.version == Some(0) {
        hosts.push(target);
    }
    let asked = Http1Target {
        scheme: Scheme::Https,
        method: "CONNECT",
        target,
        hosts: &hosts,
    };
    let read = RequestTarget::http1(&asked).map_err(|error| error.fault())?;
    // CONNECT has no content (RFC 9110 9.3.6): some servers would read what follows as one.
    let sized = ["content-length", "transfer-encoding"].map(|name| values(&request, name).is_empty());
    match sized {
        [true, true] if raw.len() == length => Ok(Some(read)),
        [true, true] => Err(Fault::EarlyBytes),
        _ => Err(Fault::AmbiguousLength),
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
