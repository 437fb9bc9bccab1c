//! TLS that the Guard opens: a server with a root of its own, a client that believes the run's
//! authority, and rules about paths.

mod broker;
mod by_rules;
pub(crate) mod clients;
mod ech;
mod git;
mod http1;
mod http2;
mod lent;
pub(crate) mod origin;
pub(crate) mod pki;
mod refusals;
mod socket;

use std::{fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use stockade_domain::{PolicyVerdict, Verdict};
use stockade_guard::{Inspector, RequestLine};
use stockade_policy::{Host, Policy};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::{
    origin::{Origin, Setup},
    pki::Pki,
};
use crate::rig::{Plan, Rig, SOON};

/// Needs requests to `a.example.com` read: `/denied` is denied, `/asked` is asked about.
struct Paths;

impl Inspector for Paths {
    fn any(&self, _: &Policy) -> bool {
        true
    }

    fn needs(&self, _: &Policy, host: &Host, _: u16) -> Option<String> {
        (host.to_string() == "a.example.com").then(|| "paths".to_owned())
    }

    fn judge(&self, _: &Policy, request: &RequestLine<'_>) -> Option<PolicyVerdict> {
        let verdict = match (request.method, request.path) {
            (_, path) if path.starts_with("/denied") => Verdict::Deny,
            ("DELETE", _) => Verdict::Deny,
            (_, path) if path.starts_with("/asked") => Verdict::Hold,
            _ => return None,
        };
        Some(PolicyVerdict {
            verdict,
            rule: "paths".to_owned(),
            reason: format!("{} {} is not for agents", request.method, request.path),
        })
    }
}

/// A Guard that inspects `a.example.com`, whose server has a certificate of `pki`.
pub(crate) struct World {
    pub(crate) rig: Arc<Rig>,
    pub(crate) origin: Origin,
}

pub(crate) fn plan(pki: &Pki) -> Plan {
    let mut plan = Plan::custom(&["a.example.com", "b.example.com"]);
    plan.config.extra_roots = vec![pki.root.clone()];
    plan.inspector = Some(Arc::new(Paths));
    plan
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// For programs, which need their time on a busy machine.
    pub(crate) async fn patient() -> Self {
        let pki = Pki::new();
        let setup = Setup::tls(pki.server(&["a.example.com", "b.example.com"]));
        let mut plan = plan(&pki);
        plan.config.handshake_timeout = SOON;
        Self::of(plan, setup).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let pki = Pki::new();
        let mut setup = Setup::tls(pki.server(&["a.example.com", "b.example.com"]));
        change(&mut setup);
        Self::of(plan(&pki), setup).await
    }

    pub(crate) async fn of(plan: Plan, setup: Setup) -> Self {
        let rig = Arc::new(plan.start().await);
        let origin = setup.start().await;
        for name in ["a.example.com", "b.example.com"] {
            rig.host(name, "93.184.216.34", 443, origin.address);
        }
        Self { rig, origin }
    }

    /// The certificate of the run's authority.
    fn authority(&self) -> CertificateDer<'static> {
        let trust = self.rig.session.as_ref().unwrap().trust().expect("an authority");
        CertificateDer::from_pem_slice(trust.authority.as_bytes()).unwrap()
    }

    /// A client that believes the run's authority alone.
    pub(crate) fn client(&self, alpn: &[&str]) -> ClientConfig {
        trusting(&self.authority(), alpn, rustls::ALL_VERSIONS)
    }

    async fn shake_hands(&self, name: &str, config: ClientConfig) -> Result<TlsStream<TcpStream>, String> {
        let stream = self.rig.connect_to(name, 443).await;
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let connected = timeout(SOON, connector.connect(server, stream)).await.expect("an end");
        connected.map_err(|error| error.to_string())
    }

    pub(crate) async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Body> {
        let stream = self
            .shake_hands("a.example.com", self.client(&["h2", "http/1.1"]))
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(crate) async fn http1(&self) -> hyper::client::conn::http1::SendRequest<Body> {
        let stream = self
            .shake_hands("a.example.com", self.client(&["http/1.1"]))
            .await
            .unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }
}

fn trusting(
    root: &CertificateDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
    config
}

pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    let body = http_body_util::Full::new(bytes.into());
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A request of HTTP/2, whose target names the host.
pub(crate) fn to(path: &str) -> Request<Body> {
    let target = format!("https://a.example.com{path}");
    Request::builder().uri(target).body(whole("")).unwrap()
}

/// A request of HTTP/1.1.
pub(crate) fn to_host(path: &str) -> Request<Body> {
    let request = Request::builder().uri(path).header("host", "a.example.com");
    request.body(whole("")).unwrap()
}

/// Status and body of an answer that should come at once.
pub(crate) async fn read<E: Debug>(
    answer: impl Future<Output = Result<Response<Incoming>, E>>,
) -> (StatusCode, String) {
    let read = async {
        let response = answer.await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    timeout(SOON, read).await.expect("an answer")
}

/// A pause in which something that must not happen would.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
