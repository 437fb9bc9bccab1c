//! A plain HTTP proxy in front of one server, with the Guard's git part in it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use stockade_guard::git::{GitRequest, GitSession, NotGit, Upstream};
use stockade_ports::InternalBody;
use tokio::net::{TcpListener, TcpStream};

/// The way to the server; it puts the credential in.
pub(crate) struct ToServer {
    pub(crate) host: String,
    pub(crate) authorization: Option<String>,
    /// Refuses to connect from the n-th request on.
    pub(crate) fail_from: AtomicUsize,
    pub(crate) sent: AtomicUsize,
}

#[async_trait]
impl Upstream for ToServer {
    async fn send(&self, mut request: Request<InternalBody>) -> Result<Response<InternalBody>, String> {
        if self.sent.fetch_add(1, Ordering::SeqCst) >= self.fail_from.load(Ordering::SeqCst) {
            return Err("connection refused".to_owned());
        }
        let headers = request.headers_mut();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(&self.host).map_err(|e| e.to_string())?,
        );
        headers.remove(header::CONNECTION);
        if let Some(value) = &self.authorization {
            let value = HeaderValue::from_str(value).map_err(|e| e.to_string())?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let stream = TcpStream::connect(&self.host).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        Ok(answer.map(|body| InternalBody::new(body.map_err(Into::into))))
    }
}

/// Starts it; it ends with the runtime.
pub(crate) async fn start(session: Arc<GitSession>, origin: String, upstream: Arc<ToServer>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (session, origin, upstream) = (Arc::clone(&session), origin.clone(), Arc::clone(&upstream));
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (session, origin, upstream) = (Arc::clone(&session), origin.clone(), Arc::clone(&upstream));
                    async move { Ok::<_, Infallible>(Box::pin(one(session, origin, upstream, request)).await) }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn one(
    session: Arc<GitSession>,
    origin: String,
    upstream: Arc<ToServer>,
    request: Request<Incoming>,
) -> Response<InternalBody> {
    let request = request.map(|body| InternalBody::new(body.map_err(Into::into)));
    match GitRequest::read(request.method(), request.uri(), request.headers()) {
        Ok(git) => session.serve(&origin, git, request, upstream).await,
        Err(NotGit::Refused(why)) => text(StatusCode::FORBIDDEN, why),
        Err(NotGit::Other) => text(StatusCode::NOT_FOUND, "not git"),
    }
}

fn text(status: StatusCode, words: &str) -> Response<InternalBody> {
    let body = Full::new(format!("{words}\n").into()).map_err(|never| match never {});
    let mut response = Response::new(InternalBody::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
