//! Conversations: a connection over a ferry, perhaps TLS on it, some bytes, and what is listened for.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use memchr::memmem;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{ferry::Ferry, judge::Attempt};

/// Longest an answer is waited for that has to come; it is not waited for once it is there.
pub(crate) const LONG: Duration = Duration::from_secs(4);
/// Longest one is waited for that must not come. Servers are asked as well what they were told.
pub(crate) const SHORT: Duration = Duration::from_millis(1800);
/// Between two pieces of what is said.
const PAUSE: Duration = Duration::from_millis(40);
/// Most that is listened to.
const LONGEST: usize = 1 << 20;

/// How TLS is spoken.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Whom the handshake names.
    pub(crate) sni: String,
    /// Application protocols that are offered.
    pub(crate) alpn: Vec<&'static str>,
    /// Authorities that are believed; nothing means whatever comes.
    pub(crate) roots: Option<Vec<CertificateDer<'static>>>,
}

impl Client {
    /// Names a server and believes everybody.
    pub(crate) fn naming(sni: &str) -> Self {
        Self {
            sni: sni.to_owned(),
            alpn: vec!["http/1.1"],
            roots: None,
        }
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = match &self.roots {
            Some(believed) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(believed.iter().cloned());
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// What an attacker listens for.
#[derive(Debug, Clone)]
pub(crate) enum Wants {
    /// Any of these texts.
    Text(Vec<Vec<u8>>),
    /// The beginning of a TLS handshake.
    Handshake,
}

/// One conversation.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Client>,
    pub(crate) say: Vec<Vec<u8>>,
    pub(crate) wants: Wants,
}

impl Talk {
    /// Plain bytes to a port of a host.
    pub(crate) fn plain(name: impl Into<String>, host: &str, say: impl Into<Vec<u8>>, wants: &str) -> Self {
        Self {
            name: name.into(),
            host: host.to_owned(),
            port: 80,
            tls: None,
            say: vec![say.into()],
            wants: Wants::Text(vec![wants.as_bytes().to_vec()]),
        }
    }

    /// The same within TLS that names the host.
    pub(crate) fn secure(name: impl Into<String>, host: &str, say: impl Into<Vec<u8>>, wants: &str) -> Self {
        Self {
            port: 443,
            tls: Some(Client::naming(host)),
            ..Self::plain(name, host, say, wants)
        }
    }

    /// TLS that names somebody else.
    pub(crate) fn sni(mut self, sni: &str) -> Self {
        self.tls = Some(Client::naming(sni));
        self
    }

    /// Another port.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// More, after a pause.
    pub(crate) fn then(mut self, say: impl Into<Vec<u8>>) -> Self {
        self.say.push(say.into());
        self
    }

    /// Another place to listen for success.
    pub(crate) fn or(mut self, text: &str) -> Self {
        if let Wants::Text(texts) = &mut self.wants {
            texts.push(text.as_bytes().to_vec());
        }
        self
    }
}

/// A request of HTTP/1.1 after which the connection ends.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Carries out one conversation.
pub(crate) async fn talk(ferry: &Ferry, talk: &Talk, patience: Duration) -> Attempt {
    let limit = patience * 4;
    let outcome = timeout(limit, hold(ferry, talk, patience)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(format!("no end within {limit:?}")));
    let (got, why) = match outcome {
        Ok(why) => (true, why),
        Err(why) => (false, why),
    };
    Attempt {
        name: talk.name.clone(),
        got,
        why,
        errno: None,
    }
}

/// All of them at once.
pub(crate) async fn talks(ferry: &Ferry, all: &[Talk], patience: Duration) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for some in all.chunks(24) {
        attempts.extend(futures::future::join_all(some.iter().map(|one| talk(ferry, one, patience))).await);
    }
    attempts
}

async fn hold(ferry: &Ferry, talk: &Talk, patience: Duration) -> Result<String, String> {
    let stream = ferry.tcp(&talk.host, talk.port).await?;
    match &talk.tls {
        None => converse(stream, talk, patience).await,
        Some(client) => {
            let name = ServerName::try_from(client.sni.clone()).map_err(|error| error.to_string())?;
            let connector = TlsConnector::from(Arc::new(client.config()?));
            let connected = timeout(patience, connector.connect(name, stream)).await;
            let stream = connected
                .map_err(|_| "no handshake in time".to_owned())?
                .map_err(|error| format!("the handshake failed: {error}"))?;
            if client.alpn == ["h2"] {
                return two(stream, talk, patience).await;
            }
            converse(stream, talk, patience).await
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    talk: &Talk,
    patience: Duration,
) -> Result<String, String> {
    let mut heard = Vec::new();
    for (place, piece) in talk.say.iter().enumerate() {
        if place > 0 {
            let _ = listen(&mut stream, &mut heard, &talk.wants, PAUSE).await;
        }
        if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    let ended = listen(&mut stream, &mut heard, &talk.wants, patience).await;
    if wanted(&heard, &talk.wants) {
        return Ok("it heard what it wanted".to_owned());
    }
    let line = heard.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().take(80).collect();
    Err(format!("heard '{}'{ended}", line.trim_end().escape_debug()))
}

/// Listens until it is there, nothing more comes, or for so long.
async fn listen<S: AsyncRead + Unpin>(
    stream: &mut S,
    heard: &mut Vec<u8>,
    wants: &Wants,
    patience: Duration,
) -> String {
    let begun = Instant::now();
    let mut buffer = vec![0; 1 << 14];
    while !wanted(heard, wants) && !is_denied(heard) && heard.len() < LONGEST {
        let left = patience.saturating_sub(begun.elapsed());
        match timeout(left, stream.read(&mut buffer)).await {
            Err(_) => return String::new(),
            Ok(Ok(0)) => return ", then the end".to_owned(),
            Ok(Ok(length)) => heard.extend_from_slice(&buffer[..length]),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return ", then the end".to_owned(),
            Ok(Err(error)) => return format!(", then {error}"),
        }
    }
    String::new()
}

/// Whether a whole answer of HTTP/1 has come that says no, in the Guard's words.
fn is_denied(heard: &[u8]) -> bool {
    heard.ends_with(b"}") && memmem::find(heard, b"application/problem+json").is_some()
}

fn wanted(heard: &[u8], wants: &Wants) -> bool {
    match wants {
        Wants::Text(texts) => texts.iter().any(|text| memmem::find(heard, text).is_some()),
        // Content type "handshake", and the message "server hello".
        Wants::Handshake => heard.first() == Some(&22) && heard.get(5) == Some(&2),
    }
}

/// Over HTTP/2: what is said is one request a piece, `METHOD URI` and perhaps a body after an empty line.
async fn two<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    talk: &Talk,
    patience: Duration,
) -> Result<String, String> {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut last = String::new();
    for piece in &talk.say {
        let text = String::from_utf8_lossy(piece).into_owned();
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let (method, uri) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .unwrap_or(("GET", "/"));
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned())));
        let sent = sender.send_request(request.map_err(|error| error.to_string())?);
        let answer = timeout(patience, sent)
            .await
            .map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        last = format!("status {}", answer.status());
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let headers: Vec<u8> = head
            .headers
            .values()
            .flat_map(|value| value.as_bytes().to_vec())
            .collect();
        if wanted(&[&headers[..], &body].concat(), &talk.wants) {
            return Ok("it heard what it wanted".to_owned());
        }
    }
    Err(last)
}

/// Believes every certificate: what an attacker would do.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
