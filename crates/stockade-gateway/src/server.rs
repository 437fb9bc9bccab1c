//! The listener: bounded connections, bounded patience, an orderly end.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::{Gateway, HttpLimits, edge::HostRule};

/// Heads of requests larger than about this are refused (431).
const HEAD_BYTES: usize = 64 << 10;
/// More headers than this are refused (431).
const HEADERS: usize = 64;

impl Gateway {
    /// Answers on a listener until `shutdown` is over, then ends the event streams, lets
    /// requests in hand finish within [`HttpLimits::grace`], and returns.
    ///
    /// A listener on the loopback answers for loopback names only.
    ///
    /// # Errors
    ///
    /// When the listener has no address. Failures of single connections are not errors.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let loopback = listener.local_addr()?.ip().is_loopback();
        let router = self.router_for(HostRule::of(loopback, &self.app.limits.allowed_hosts));
        let permits = Arc::new(Semaphore::new(self.app.limits.connections.max(1)));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = connection(stream, router.clone(), self.app.limits.clone(), self.app.closing());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, mostly: connections that end free some.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        self.app.0.closing.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.app.limits.grace, ended).await;
        connections.shutdown().await;
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // A client that is gone already is found out when it is read from.
    let _ = stream.set_nodelay(true);
    Ok((stream, permit))
}

async fn connection(stream: TcpStream, router: Router, limits: HttpLimits, mut closing: watch::Receiver<bool>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut asked = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            _ = closing.wait_for(|closing| *closing), if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
