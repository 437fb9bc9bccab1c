//! The client's side of HTTP/1, in the clear or inside TLS.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin as Pinned,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::{server::conn::http1 as server, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use stockade_policy::{Fault, Host};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    answering::Answering,
    exchange::{Answer, Exchange},
    filter::Filter,
    forward::Forward,
    problem::problem_bytes,
    upgrade::Upgraded,
};
use crate::{
    ask,
    connection::carry,
    meter::{Meter, Metered},
    session::Session,
    traffic::{Tap, Tolled},
};

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
    let ended = loop {
        tokio::select! {
            served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                unread = served.is_err_and(|error| error.is_parse());
                break "closed";
            }
            // The client stays, and is told when it asks again. Before that, a request that waits is answered.
            () = answering.severed() => Arc::clone(&answering).spawn_close(),
            () = answering.idle().idle(session.config.idle_timeout) => break "idle",
            () = session.stop.cancelled() => break "sandbox ended",
        }
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
            let tap = answering.take_blind().await;
            tunnel(&session, &tap, &mut client, other, [parts.read_buf, rest.freeze()]).await
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
async fn tunnel<S>(
    session: &Session,
    tap: &Arc<Tap>,
    client: &mut S,
    other: Upgraded,
    early: [Bytes; 2],
) -> &'static str
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut other = Tolled::within(TokioIo::new(other), Arc::clone(tap));
    for bytes in early {
        if other.write_all(&bytes).await.is_err() {
            return "broken";
        }
    }
    carry(session, client, &mut other, tap).await
}
