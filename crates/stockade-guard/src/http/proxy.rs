//! Plain HTTP to an allowed host, request by request.
//!
//! The first request opens the connection outwards, through the gate; later ones go over the
//! same connection after their names were checked, and a new one is asked for when the server
//! has closed it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin as Pinned,
    sync::Arc,
};

use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use stockade_domain::Action;
use stockade_policy::{Host, Protocol};
use stockade_ports::InternalBody;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;

use super::{
    filter::{Filter, Seen},
    problem::{problem, problem_bytes},
    request::{Pin, Stray, check, outward, strip_hop_by_hop},
};
use crate::{
    ask,
    door::{Opened, Shut, open},
    meter::{Meter, Metered},
    session::Session,
};

type Answer = Response<InternalBody>;

/// Serves the HTTP requests of one connection.
pub(crate) async fn serve_proxied(session: Arc<Session>, stream: TcpStream, buffer: BytesMut, host: Host, port: u16) {
    let seen = Seen::default();
    let idle = Arc::new(Meter::new());
    let proxy = Arc::new(Proxy {
        pin: Pin { host, port },
        session: Arc::clone(&session),
        idle: Arc::clone(&idle),
        upstream: Mutex::new(None),
    });
    // Bytes between the client and the Guard, so that a silent client does not stay for ever.
    let client = Metered::new(stream, Arc::clone(&idle));
    let filter = Filter::new(client, buffer, session.config.max_header_bytes, Arc::clone(&seen));
    let service = {
        let proxy = Arc::clone(&proxy);
        service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            Box::pin(async move { Ok::<_, Infallible>(proxy.call(request).await) })
                as Pinned<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>
        })
    };
    let mut connection = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(session.config.idle_timeout)
        .max_buf_size(session.config.max_header_bytes.max(8192))
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(filter), service);
    let ended = tokio::select! {
        _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => "closed",
        () = idle.idle(session.config.idle_timeout) => "idle",
        () = session.stop.cancelled() => "sandbox ended",
    };
    let mut client = connection.into_parts().io.into_inner().into_inner();
    if let Some(fault) = seen.get() {
        let denial = session.refuse(ask::faulty(proxy.action(), *fault)).await;
        let answer = problem_bytes(StatusCode::BAD_REQUEST, &denial.rule, &denial.reason);
        let _ = client.write_all(&answer).await;
    }
    let _ = client.shutdown().await;
    if let Some(upstream) = proxy.upstream.lock().await.take() {
        upstream.close(ended).await;
    }
}

/// One client connection and, once a request was let out, one connection outwards.
struct Proxy {
    pin: Pin,
    session: Arc<Session>,
    /// Silence between the client and the Guard.
    idle: Arc<Meter>,
    upstream: Mutex<Option<Upstream>>,
}

/// A connection outwards that speaks HTTP.
struct Upstream {
    sender: SendRequest<Incoming>,
    driver: AbortOnDropHandle<()>,
    opened: Opened,
    requests: u64,
}

impl Upstream {
    async fn close(self, ended: &str) {
        // First the bytes stop, then they are counted.
        drop(self.sender);
        drop(self.driver);
        let mut opened = self.opened;
        opened.note("requests", json!(self.requests));
        opened.close(ended).await;
    }
}

impl Proxy {
    fn action(&self) -> Action {
        ask::connect(&self.pin.host, self.pin.port, Protocol::Http)
    }

    async fn call(&self, request: Request<Incoming>) -> Answer {
        let action = match check(&request, &self.pin) {
            Ok(()) => return self.forward(request, self.action()).await,
            Err(Stray::Authority(authority)) => ask::with(self.action(), "authority", json!(authority)),
            Err(Stray::Fault(fault)) => ask::faulty(self.action(), fault),
        };
        // Behind a bare address stands any name that the policy lets out; behind a name only itself.
        if matches!(self.pin.host, Host::Address(_)) && !self.session.is_denied(&action) {
            return self.forward(request, action).await;
        }
        let denial = self.session.refuse(action).await;
        problem(StatusCode::FORBIDDEN, &denial.rule, &denial.reason)
    }

    async fn forward(&self, mut request: Request<Incoming>, action: Action) -> Answer {
        outward(&mut request);
        let mut place = self.upstream.lock().await;
        if let Err(answer) = self.ready(&mut place, action).await {
            return answer;
        }
        let Some(upstream) = place.as_mut() else {
            return unreachable_host("the connection is gone");
        };
        upstream.requests += 1;
        match upstream.sender.send_request(request).await {
            Ok(mut response) => {
                strip_hop_by_hop(response.headers_mut());
                response.map(|body| InternalBody::new(body.map_err(Into::into)))
            }
            Err(error) => {
                if let Some(broken) = place.take() {
                    broken.close("broken").await;
                }
                unreachable_host(&error.to_string())
            }
        }
    }

    /// Makes sure there is a connection outwards that takes a request.
    async fn ready(&self, place: &mut Option<Upstream>, action: Action) -> Result<(), Answer> {
        if let Some(upstream) = place.as_mut() {
            // Of a bare address only requests with the same name share a connection.
            let same = upstream.opened.action() == &action;
            if same && upstream.sender.ready().await.is_ok() {
                return Ok(());
            }
            if let Some(used) = place.take() {
                used.close("closed").await;
            }
        }
        let busy = self.idle.busy();
        let opened = open(&self.session, self.pin.host.clone(), self.pin.port, action).await;
        drop(busy);
        let mut opened = opened.map_err(|shut| match shut {
            Shut::Refused(denial) => problem(StatusCode::FORBIDDEN, &denial.rule, &denial.reason),
            Shut::Failed(error) => unreachable_host(&error),
        })?;
        let Some(stream) = opened.take_stream() else {
            return Err(unreachable_host("the connection is gone"));
        };
        let metered = Metered::new(stream, Arc::clone(&opened.meter));
        let handshake = client::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(self.session.config.max_header_bytes.max(8192))
            .handshake(TokioIo::new(metered))
            .await;
        match handshake {
            Ok((sender, connection)) => {
                let driver = AbortOnDropHandle::new(tokio::spawn(async move {
                    let _ = connection.await;
                }));
                *place = Some(Upstream {
                    sender,
                    driver,
                    opened,
                    requests: 0,
                });
                Ok(())
            }
            Err(error) => {
                opened.abort(error.to_string()).await;
                Err(unreachable_host(&error.to_string()))
            }
        }
    }
}

fn unreachable_host(why: &str) -> Answer {
    problem(StatusCode::BAD_GATEWAY, "stockade.unreachable", why)
}
