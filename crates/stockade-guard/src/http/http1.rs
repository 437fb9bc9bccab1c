//! The client's side of HTTP/1, in the clear or inside TLS.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin as Pinned,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1 as server, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use stockade_domain::Action;
use stockade_policy::{Fault, Host};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    exchange::{Answer, Exchange},
    filter::{Filter, Valve},
    forward::Forward,
    problem::problem_bytes,
    upgrade::Upgraded,
};
use crate::{
    ask,
    connection::carry,
    meter::{Meter, Metered},
    session::Session,
};

/// Who answers the requests of one client connection.
#[async_trait]
pub(crate) trait Answering: Send + Sync + 'static {
    fn session(&self) -> &Arc<Session>;

    /// Silence between the client and the Guard.
    fn idle(&self) -> &Arc<Meter>;

    fn valve(&self) -> &Arc<Valve>;

    /// What a request that cannot be read is a fault of.
    fn action(&self) -> Action;

    async fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer;

    /// The other side of a connection that is no HTTP any more.
    async fn take_upgraded(&self) -> Option<Upgraded>;

    /// Settles what was open.
    async fn close(&self, ended: &str);
}

/// Serves the HTTP requests of one connection in the clear.
pub(crate) async fn serve_plain(session: Arc<Session>, stream: TcpStream, buffer: BytesMut, host: Host, port: u16) {
    let idle = Arc::new(Meter::new());
    let exchange = Exchange::plain(session, host, port, Arc::clone(&idle), Arc::default());
    // Bytes between the client and the Guard, so that a silent client does not stay for ever.
    serve_http1(exchange, Metered::new(stream, idle), buffer).await;
}

/// Serves the requests that a client sends to its proxy with their whole URL, of which `buffer`
/// was read already.
pub(crate) async fn serve_forward(session: Arc<Session>, stream: TcpStream, buffer: BytesMut) {
    let forward = Forward::new(session);
    let client = Metered::new(stream, Arc::clone(forward.idle()));
    serve_http1(forward, client, buffer).await;
}

/// Serves the HTTP/1 requests of one connection, of which `buffer` was read already.
pub(crate) async fn serve_http1<A, S>(answering: Arc<A>, client: S, buffer: BytesMut)
where
    A: Answering,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Arc::clone(answering.session());
    let largest = session.config.max_header_bytes;
    let filter = Filter::new(client, buffer, largest, Arc::clone(answering.valve()));
    let service = {
        let answering = Arc::clone(&answering);
        service_fn(move |request| {
            let answering = Arc::clone(&answering);
            Box::pin(async move { Ok::<_, Infallible>(answering.call(request).await) })
                as Pinned<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>
        })
    };
    let mut connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(session.config.idle_timeout)
        .max_buf_size(largest.max(8192))
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(filter), service);
    let mut unread = false;
    let ended = tokio::select! {
        served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
            unread = served.is_err_and(|error| error.is_parse());
            "closed"
        }
        () = answering.idle().idle(session.config.idle_timeout) => "idle",
        () = session.stop.cancelled() => "sandbox ended",
    };
    let parts = connection.into_parts();
    let (mut client, rest) = parts.io.into_inner().into_parts();
    let ended = match (answering.valve().fault(), answering.take_upgraded().await) {
        (Some(fault), _) => {
            let denial = session.refuse(ask::faulty(answering.action(), fault)).await;
            let answer = problem_bytes(StatusCode::BAD_REQUEST, &denial.rule, &denial.reason);
            let _ = client.write_all(&answer).await;
            ended
        }
        (None, Some(other)) if ended == "closed" => {
            tunnel(
                &session,
                answering.idle(),
                &mut client,
                other,
                [parts.read_buf, rest.freeze()],
            )
            .await
        }
        // The parser found something the filter let pass, and has answered.
        (None, _) if unread => {
            session
                .refuse(ask::faulty(answering.action(), Fault::MalformedRequest))
                .await;
            ended
        }
        (None, _) => ended,
    };
    let _ = client.shutdown().await;
    answering.close(ended).await;
}

/// Lets the bytes of a WebSocket through, those first that were read with the request.
async fn tunnel<S>(session: &Session, idle: &Meter, client: &mut S, other: Upgraded, early: [Bytes; 2]) -> &'static str
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut other = TokioIo::new(other);
    for bytes in early {
        if other.write_all(&bytes).await.is_err() {
            return "broken";
        }
    }
    carry(session, client, &mut other, idle).await
}
