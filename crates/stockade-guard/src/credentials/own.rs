//! Requests that the Guard makes itself, over connections of its own.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use stockade_gate::Scope;
use stockade_policy::{Host, host_and_port};
use tokio::{net::TcpStream, time::timeout};

use super::fetch::{Fetch, FetchError, MOST};
use crate::{
    GuardConfig,
    dial::Dial,
    lookup::{Found, Lookup, judge},
    tls::{Outward, Unreached},
};

/// Makes a request as a sandbox's would be made: the name is looked up once, its addresses are
/// judged, the one that was judged is dialled, and the server's certificate is verified.
pub(crate) struct OwnRequests {
    pub(crate) lookup: Lookup,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) outward: Outward,
    pub(crate) scope: Scope,
    pub(crate) config: GuardConfig,
}

#[async_trait]
impl Fetch for OwnRequests {
    async fn fetch(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let uri = request.uri().clone();
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if uri.scheme_str() != Some("https") {
            return Err(FetchError(format!("{authority} is not asked without TLS")));
        }
        let (host, port) = host_and_port(authority).map_err(|error| FetchError(format!("{authority}: {error}")))?;
        let stream = self.connect(&host, port.unwrap_or(443)).await?;
        let stream = self
            .outward
            .connect(&host, false, stream, self.config.handshake_timeout);
        let (stream, _) = stream.await.map_err(|unreached| match unreached {
            Unreached::Certificate(why) | Unreached::Handshake(why) => FetchError(why),
        })?;
        let named = HeaderValue::from_str(authority).map_err(|error| FetchError(error.to_string()))?;
        request.headers_mut().insert(HOST, named);
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        *request.uri_mut() = target.parse().map_err(|_| FetchError("no target".to_owned()))?;
        let failed = |error: hyper::Error| FetchError(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let exchange = async {
            let (head, body) = sender
                .send_request(request.map(Full::new))
                .await
                .map_err(failed)?
                .into_parts();
            let body = Limited::new(body, MOST + 1).collect().await;
            let body = body.map_err(|error| FetchError(error.to_string()))?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        // The connection ends with the answer.
        tokio::select! {
            answer = exchange => answer,
            ended = connection => Err(FetchError(match ended {
                Ok(()) => "the connection was closed without an answer".to_owned(),
                Err(error) => error.to_string(),
            })),
        }
    }
}

impl OwnRequests {
    async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, FetchError> {
        let rules = self.scope.policy().egress();
        let found = match host {
            Host::Name(name) => self.lookup.find(name, rules).await,
            Host::Address(address) => judge(std::iter::once(*address), rules),
        };
        let addresses = match found {
            Found::Addresses { open, .. } => open,
            Found::Refused(_) => return Err(FetchError(format!("{host} leads to an address that is not reachable"))),
            Found::Failed(why) => return Err(FetchError(why)),
        };
        let mut last = format!("{host} has no address");
        for (address, _) in addresses {
            let dialled = timeout(
                self.config.connect_timeout,
                self.dial.dial(SocketAddr::new(address, port)),
            );
            match dialled.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{host}: {error}"),
                Err(_) => last = format!("{host} did not answer in time"),
            }
        }
        Err(FetchError(last))
    }
}
