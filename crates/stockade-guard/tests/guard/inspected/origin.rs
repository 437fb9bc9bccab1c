//! A web server behind TLS, or in the clear, that speaks HTTP/1.1, HTTP/2 and WebSocket.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Barrier,
};
use tokio_rustls::TlsAcceptor;

use super::pki::Identity;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What the server saw.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    /// Two requests to `/both` meet here.
    both: Arc<Barrier>,
}

/// How a server is set up.
pub(crate) struct Setup {
    pub(crate) identity: Option<Identity>,
    pub(crate) alpn: Vec<&'static str>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Setup {
    pub(crate) fn tls(identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            alpn: vec!["h2", "http/1.1"],
            versions: rustls::ALL_VERSIONS.to_vec(),
        }
    }

    pub(crate) fn plain() -> Self {
        Self {
            identity: None,
            alpn: Vec::new(),
            versions: Vec::new(),
        }
    }

    pub(crate) async fn start(self) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            both: Arc::new(Barrier::new(2)),
        };
        let acceptor = self.identity.map(|identity| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&self.versions)
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(identity.chain, identity.key)
                .unwrap();
            config.alpn_protocols = self.alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
            TlsAcceptor::from(Arc::new(config))
        });
        let own = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, acceptor) = (own.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        return own.http1(stream).await;
                    };
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => own.http2(stream).await,
                        _ => own.http1(stream).await,
                    }
                });
            }
        });
        origin
    }
}

impl Origin {
    /// `METHOD path` of every request so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let service = service_fn(move |request| {
            let own = self.clone();
            async move { Ok::<_, Infallible>(own.answer(request).await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let service = service_fn(move |request| {
            let own = self.clone();
            async move { Ok::<_, Infallible>(own.answer(request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        self.seen.lock().unwrap().push(format!("{method} {path}"));
        match path.as_str() {
            "/both" => {
                self.both.wait().await;
                text("both are here")
            }
            "/head" => text(&head(&request)),
            // RFC 6749, section 5.1.
            "/token" => {
                let mut answer =
                    text(r#"{"access_token":"minted-for-the-guard","token_type":"Bearer","expires_in":3600}"#);
                let json = HeaderValue::from_static("application/json");
                answer.headers_mut().insert("content-type", json);
                answer
            }
            "/authorized" => {
                self.seen.lock().unwrap().push(head(&request));
                text("welcome")
            }
            "/bye" => {
                let mut response = text("bye");
                response
                    .headers_mut()
                    .insert("connection", HeaderValue::from_static("close"));
                response
            }
            "/never" => std::future::pending().await,
            "/large" => large(),
            "/count" => {
                let mut body = request.into_body();
                let mut length = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    length += frame.data_ref().map_or(0, Bytes::len);
                }
                text(&length.to_string())
            }
            "/call" => call(request),
            "/ws" => socket(request),
            _ => Response::new(request.into_body().boxed_unsync()),
        }
    }
}

fn text(words: &str) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(words.to_owned()));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

/// The head of a request as the server reads it.
fn head(request: &Request<Incoming>) -> String {
    let mut words = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        words.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    words
}

/// Sixteen MiB in pieces.
fn large() -> Response<Body> {
    let pieces = futures::stream::iter((0..256).map(|_| Ok(Frame::data(Bytes::from(vec![7; 64 * 1024])))));
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// As gRPC does: the body comes back, and the status is a trailer, with the request's trailer.
fn call(request: Request<Incoming>) -> Response<Body> {
    let takes = request.headers().get(http::header::TE).cloned();
    let frames = futures::stream::unfold((request.into_body(), false), move |(mut body, done)| {
        let takes = takes.clone();
        async move {
            if done {
                return None;
            }
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), (body, false))),
                Some(Err(error)) => Some((Err(error), (body, true))),
                rest => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    if let Some(takes) = takes {
                        trailers.insert("x-te", takes);
                    }
                    if let Some(Ok(frame)) = rest {
                        trailers.extend(frame.into_trailers().unwrap_or_default());
                    }
                    Some((Ok(Frame::trailers(trailers)), (body, true)))
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("trailer", HeaderValue::from_static("grpc-status, x-te, x-sum"));
    response
}

/// Says hello, then echoes the bytes of a socket.
fn socket(mut request: Request<Incoming>) -> Response<Body> {
    let mut response = text("");
    if !request.headers().contains_key("sec-websocket-key") {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", HeaderValue::from_static("tested"));
    if let Some(told) = request.headers().get("authorization") {
        headers.insert("x-told", told.clone());
    }
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        stream.write_all(b"welcome").await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..length]).await.unwrap();
        }
        let _ = stream.shutdown().await;
    });
    response
}
