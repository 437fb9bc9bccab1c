//! A TLS connection that is opened: the Guard is the server to the client and the client to
//! the server, for one name, with the application protocol the server chose.
//!
//! The server comes first. A client sees a certificate of the run's authority only after the
//! real one was verified for the same name, so that a bad one is never papered over.

use std::{io, sync::Arc};

use bytes::BytesMut;
use rustls::AlertDescription;
use serde_json::json;
use stockade_policy::Host;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{Alpn, Hello, Tls, Unreached, rewound::Rewound};
use crate::{
    connection::{ACCESS_DENIED, goodbye, reset},
    door::Opened,
    http::{Exchange, Outer, Pin, serve_http1, serve_http2},
    meter::{Meter, Metered},
    session::Session,
};

/// A TLS connection to be inspected, as its ClientHello was read.
pub(crate) struct Inspected {
    pub(crate) session: Arc<Session>,
    /// What was connected to.
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The one name: of the certificate on both sides and in every request.
    pub(crate) name: Host,
    /// The rule that needs it.
    pub(crate) rule: String,
    pub(crate) hello: Hello,
}

/// Why inspection ended before the first request.
struct Ended {
    rule: &'static str,
    reason: String,
}

/// Serves an admitted connection: `stream` is the client's, of which `buffer` was read.
pub(crate) async fn serve(asked: Inspected, stream: TcpStream, buffer: BytesMut, mut opened: Opened) {
    let session = Arc::clone(&asked.session);
    opened.note("inspected_by", json!(asked.rule));
    if asked.hello.ech {
        opened.note("ech_offered", json!(true));
    }
    let (Some(tls), Some(outer)) = (session.tls.as_ref(), opened.take_stream()) else {
        opened.abort("there is nothing to inspect with".to_owned()).await;
        return reset(stream);
    };
    if !asked.offers_http() {
        let reason = format!(
            "rule '{}' needs requests to {} to be read, and the client offers no HTTP over TLS",
            asked.rule, asked.name
        );
        return asked.give_up(stream, opened, "stockade.inspection", reason).await;
    }
    let http2 = asked.hello.alpn.iter().any(|id| id == Alpn::Http2.id());
    let patience = session.config.handshake_timeout;
    let connected = tokio::select! {
        connected = tls.outward.connect(&asked.name, http2, outer, patience) => connected,
        () = session.stop.cancelled() => Err(Unreached::Handshake("the sandbox ended".to_owned())),
    };
    let (outer, alpn) = match connected {
        Ok(connected) => connected,
        Err(Unreached::Certificate(reason)) => {
            return asked
                .give_up(stream, opened, "stockade.upstream_certificate", reason)
                .await;
        }
        Err(Unreached::Handshake(reason)) => {
            opened.abort(reason).await;
            return reset(stream);
        }
    };
    if !asked.takes(alpn) {
        let reason = format!(
            "{} does not speak the version of HTTP that the client insists on",
            asked.name
        );
        return asked.give_up(stream, opened, "stockade.inspection", reason).await;
    }
    let action = opened.action().clone();
    opened.note("alpn", json!(String::from_utf8_lossy(alpn.id())));
    let idle = Arc::new(Meter::new());
    let client = Rewound::new(buffer, Metered::new(stream, Arc::clone(&idle)));
    let client = match asked.accept(tls, client, alpn).await {
        Ok(client) => client,
        Err(Some(ended)) => {
            session.refuse_because(action, ended.rule, &ended.reason).await;
            return opened.abort(ended.reason).await;
        }
        Err(None) => return opened.abort("the client gave up the TLS handshake".to_owned()).await,
    };
    let outer = match Outer::speak(Box::new(outer), opened, alpn, &session.config).await {
        Ok(outer) => outer,
        Err(_) => return,
    };
    let pin = Pin::secure(asked.name, asked.port);
    let exchange = Exchange::secure(session, asked.host, pin, action, alpn, idle, outer);
    match alpn {
        Alpn::Http1 => serve_http1(exchange, client, BytesMut::new()).await,
        Alpn::Http2 => serve_http2(exchange, client).await,
    }
}

impl Inspected {
    /// A client that names no application protocol means HTTP/1.1 here.
    fn offers_http(&self) -> bool {
        let ids = [Alpn::Http1.id(), Alpn::Http2.id()];
        self.hello.alpn.is_empty() || self.hello.alpn.iter().any(|offered| ids.contains(&offered.as_slice()))
    }

    /// Whether the client speaks what the server chose.
    fn takes(&self, alpn: Alpn) -> bool {
        self.hello.alpn.is_empty() || self.hello.alpn.iter().any(|offered| offered == alpn.id())
    }

    async fn give_up(&self, stream: TcpStream, opened: Opened, rule: &str, reason: String) {
        let action = opened.action().clone();
        self.session.refuse_because(action, rule, &reason).await;
        opened.abort(reason).await;
        goodbye(stream, &ACCESS_DENIED).await;
    }

    /// Shakes hands as the server of the name. `Err(None)` is a client that just went away.
    async fn accept<S>(
        &self,
        tls: &Tls,
        client: S,
        alpn: Alpn,
    ) -> Result<tokio_rustls::server::TlsStream<S>, Option<Ended>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let config = match tls.authority.server(&self.name, alpn) {
            Ok(config) => config,
            Err(error) => {
                return Err(Some(Ended {
                    rule: "stockade.inspection",
                    reason: error.to_string(),
                }));
            }
        };
        let accepting = TlsAcceptor::from(config).accept(client).into_fallible();
        let accepted = tokio::select! {
            accepted = timeout(self.session.config.handshake_timeout, accepting) => accepted,
            () = self.session.stop.cancelled() => return Err(None),
        };
        match accepted {
            Ok(Ok(client)) => Ok(client),
            Ok(Err((error, mut client))) => {
                let _ = client.shutdown().await;
                Err(self.turned_away(&error))
            }
            Err(_) => Err(None),
        }
    }

    /// Why a client did not go through with the handshake, where it said so.
    fn turned_away(&self, error: &io::Error) -> Option<Ended> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let Self { name, rule, .. } = self;
        let (rule, reason) = match inner {
            rustls::Error::AlertReceived(alert) if refuses_authority(*alert) => (
                "stockade.client_trust",
                format!(
                    "rule '{rule}' needs requests to {name} to be read, and the client refused the certificate of the \
                     run's authority ({alert:?}); it pins another one or does not read the sandbox's certificate bundle"
                ),
            ),
            rustls::Error::AlertReceived(AlertDescription::EncryptedClientHelloRequired) => (
                "stockade.encrypted_hello",
                format!(
                    "rule '{rule}' needs requests to {name} to be read, and the client insists on a server name that \
                     is hidden (Encrypted ClientHello)"
                ),
            ),
            other => (
                "stockade.tls_handshake",
                format!("the client's TLS handshake for {name} failed: {other}"),
            ),
        };
        Some(Ended { rule, reason })
    }
}

/// The alerts of clients that do not believe a certificate (RFC 8446 6.2).
fn refuses_authority(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::BadCertificateHashValue
    )
}
