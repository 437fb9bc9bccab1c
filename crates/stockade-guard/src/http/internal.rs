//! Internal names: the Guard carries requests to the gateway, with the run's identity.

use std::{convert::Infallible, sync::Arc};

use http::{
    Request, StatusCode, Uri,
    header::{EXPECT, PROXY_AUTHORIZATION},
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use stockade_policy::{Host, Protocol, egress::INTERNAL_PORT};
use stockade_ports::{InternalBody, InternalResponse};
use tokio::net::TcpStream;

use super::{
    problem::problem,
    request::{Pin, Stray, check},
};
use crate::{ask, session::Session};

/// Serves the requests of one connection to an internal name. Bodies stream both ways; a
/// client that goes away drops the call it waits for. A call may be silent for as long as it
/// takes: it may wait for a person.
pub(crate) async fn serve_internal(session: Arc<Session>, stream: TcpStream, name: &'static str) {
    let service = {
        let session = Arc::clone(&session);
        service_fn(move |request| {
            let session = Arc::clone(&session);
            async move { Ok::<_, Infallible>(call(&session, name, request).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(session.config.idle_timeout)
        .max_buf_size(session.config.max_header_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = session.stop.cancelled() => {}
    }
}

/// Answers one request for an internal name.
pub(super) async fn call(session: &Session, name: &'static str, mut request: Request<Incoming>) -> InternalResponse {
    let Ok(host) = Host::parse(name) else {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "stockade.internal",
            "not an internal name",
            true,
        );
    };
    let pin = Pin::plain(host, INTERNAL_PORT);
    if let Err(stray) = check(&request, &pin) {
        let action = ask::connect(&pin.host, pin.port, Protocol::Http);
        let action = match stray {
            Stray::Elsewhere { named, .. } => ask::with(action, "authority", json!(named)),
            Stray::Fault(fault) => ask::faulty(action, fault),
        };
        let denial = session.refuse(action).await;
        return problem(StatusCode::MISDIRECTED_REQUEST, &denial.rule, &denial.reason, true);
    }
    if session.trial.is_on() {
        let action = ask::connect(&pin.host, pin.port, Protocol::Http);
        let denial = session.trial.would_allow(&action);
        return problem(StatusCode::SERVICE_UNAVAILABLE, &denial.rule, &denial.reason, true);
    }
    // Hyper has already told the client to go on.
    request.headers_mut().remove(EXPECT);
    // What a client says to its proxy is not for the gateway.
    request.headers_mut().remove(PROXY_AUTHORIZATION);
    if let Some(path) = request.uri().authority().and(request.uri().path_and_query()).cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    let request = request.map(|body| InternalBody::new(body.map_err(Into::into)));
    session.internal.call(session.identity(), name, request).await
}
