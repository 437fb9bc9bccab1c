//! TLS outwards: the real server, verified strictly. There is no way to turn that off.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, ServerName},
};
use stockade_policy::Host;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Alpn, provider};

/// Servers of one run whose sessions are resumed.
const SESSIONS: usize = 64;

/// Whom the Guard believes: the web's authorities and those of the installation.
#[derive(Debug, Clone)]
pub(crate) struct Trusted(Arc<WebPkiServerVerifier>);

/// How one run speaks TLS outwards. No two runs share sessions: a resumed one would tell the
/// server that they belong together.
#[derive(Clone)]
pub(crate) struct Outward {
    http1: TlsConnector,
    both: TlsConnector,
}

/// Why there is no TLS connection outwards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// The certificate is not one for this name that anybody vouches for.
    Certificate(String),
    /// Anything else.
    Handshake(String),
}

impl Trusted {
    /// The web's authorities and `extra` ones.
    pub(crate) fn new(extra: &[CertificateDer<'static>]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        for root in extra {
            roots.add(root.clone()).map_err(|error| error.to_string())?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        verifier.map(Self).map_err(|error| error.to_string())
    }

    /// What one run connects with.
    pub(crate) fn outward(&self) -> Result<Outward, rustls::Error> {
        let config = |alpn: &[Alpn]| -> Result<TlsConnector, rustls::Error> {
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()?
                .with_webpki_verifier(Arc::clone(&self.0))
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|alpn| alpn.id().to_vec()).collect();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Outward {
            http1: config(&[Alpn::Http1])?,
            both: config(&[Alpn::Http2, Alpn::Http1])?,
        })
    }
}

impl Outward {
    /// Shakes hands as a client of `name`, which the certificate must be for, offering HTTP/2
    /// where the sandbox's client does.
    pub(crate) async fn connect<S>(
        &self,
        name: &Host,
        http2: bool,
        stream: S,
        patience: Duration,
    ) -> Result<(TlsStream<S>, Alpn), Unreached>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server = server_name(name)?;
        let connector = if http2 { &self.both } else { &self.http1 };
        match timeout(patience, connector.connect(server, stream)).await {
            Ok(Ok(stream)) => {
                let alpn = Alpn::of(stream.get_ref().1.alpn_protocol());
                Ok((stream, alpn))
            }
            Ok(Err(error)) => Err(unreached(name, &error)),
            Err(_) => Err(Unreached::Handshake(format!(
                "{name} did not finish the TLS handshake in time"
            ))),
        }
    }
}

fn server_name(name: &Host) -> Result<ServerName<'static>, Unreached> {
    match name {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(text) => ServerName::try_from(text.as_str().to_owned())
            .map_err(|error| Unreached::Handshake(format!("{name} cannot be a TLS server's name: {error}"))),
    }
}

fn unreached(name: &Host, error: &io::Error) -> Unreached {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => {
            Unreached::Certificate(format!("the certificate of {name} {}", wrong(certificate)))
        }
        Some(other) => Unreached::Handshake(format!("the TLS handshake with {name} failed: {other}")),
        None => Unreached::Handshake(format!("the TLS handshake with {name} failed: {error}")),
    }
}

fn wrong(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name".to_owned()
        }
        CertificateError::UnknownIssuer => "was signed by an authority that this Guard does not know".to_owned(),
        other => format!("does not hold: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_webs_authorities_are_there_and_a_root_that_is_none_is_an_error() {
        assert!(Trusted::new(&[]).is_ok());
        assert!(webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() > 50);
        assert!(Trusted::new(&[CertificateDer::from(vec![1, 2, 3])]).is_err());
    }
}
