//! The client's side of HTTP/2, inside TLS: many requests at a time, each judged by itself.

use std::{convert::Infallible, pin::pin, sync::Arc};

use hyper::{server::conn::http2 as server, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{WINDOW, WINDOWS, exchange::Exchange, tasks::Tasks};

/// Requests of one connection at a time.
const STREAMS: u32 = 100;

/// Serves the HTTP/2 requests of one connection.
pub(crate) async fn serve_http2<S>(exchange: Arc<Exchange>, client: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Arc::clone(&exchange.session);
    let (tasks, ending) = Tasks::new();
    let service = {
        let exchange = Arc::clone(&exchange);
        service_fn(move |request| {
            let exchange = Arc::clone(&exchange);
            async move { Ok::<_, Infallible>(exchange.call(request).await) }
        })
    };
    let connection = server::Builder::new(tasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .max_header_list_size(u32::try_from(session.config.max_header_bytes).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(client), service);
    let mut connection = pin!(connection);
    let ended = loop {
        tokio::select! {
            _ = connection.as_mut() => break "closed",
            () = exchange.severed() => exchange.spawn_close(),
            () = exchange.idle.idle(session.config.idle_timeout) => break "idle",
            () = session.stop.cancelled() => break "sandbox ended",
        }
    };
    ending.end().await;
    exchange.close(ended).await;
}
