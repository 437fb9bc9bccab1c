//! One HTTP server for all of them.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::HTTP2;

/// A request that reached a server, whole.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What it was answered with.
    pub status: StatusCode,
}

/// What every server remembers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on a free port of loopback.
pub(crate) async fn start<F, A>(answer: F) -> std::io::Result<Running>
where
    F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Bytes>> + Send + 'static,
{
    start_over(None, answer).await
}

/// The same over TLS, where there is something to accept it with: HTTP/2 for who asks for it.
pub(crate) async fn start_over<F, A>(tls: Option<TlsAcceptor>, answer: F) -> std::io::Result<Running>
where
    F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Bytes>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let log = Log::default();
    let own = log.clone();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            let (answer, log, tls) = (answer.clone(), own.clone(), tls.clone());
            connections.spawn(async move {
                match tls {
                    None => converse(stream, false, answer, log).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
                            converse(stream, http2, answer, log).await;
                        }
                    }
                }
            });
        }
    });
    Ok(Running { address, log, task })
}

/// Serves one connection to its end.
async fn converse<S, F, A>(stream: S, http2: bool, answer: F, log: Log)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Bytes>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, log) = (answer.clone(), log.clone());
        async move { Ok::<_, Infallible>(one(request, answer, log).await) }
    });
    let stream = TokioIo::new(stream);
    // A connection that breaks is the client's affair.
    let _ = if http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(stream, service).await
    } else {
        http1::Builder::new().serve_connection(stream, service).await
    };
}

async fn one<F, A>(request: Request<Incoming>, answer: F, log: Log) -> Response<Full<Bytes>>
where
    F: Fn(Request<Bytes>) -> A,
    A: Future<Output = Response<Bytes>>,
{
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return status(StatusCode::BAD_REQUEST).map(Full::new);
    };
    let mut seen = Seen {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        headers: parts.headers.clone(),
        body: body.clone(),
        status: StatusCode::OK,
    };
    let response = answer(Request::from_parts(parts, body)).await;
    seen.status = response.status();
    log.add(seen);
    response.map(Full::new)
}

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
