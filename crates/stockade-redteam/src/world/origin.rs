//! Servers of the red team's world: HTTP/1 in the clear and over TLS, HTTP/2 over TLS. They read as carelessly as
//! servers do, tell whoever asks what they were told, and remember it.

use std::{
    convert::Infallible,
    io,
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::pki::Identity;
use crate::{RedTeamError, prepare};

/// First byte of a TLS record with a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// Longest a client may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);

/// One server.
pub(crate) struct Origin {
    /// What it says to whoever gets an answer, beside the path.
    word: String,
    acceptor: TlsAcceptor,
    connections: AtomicU64,
    heard: Mutex<Vec<u8>>,
}

impl Origin {
    pub(crate) fn new(word: &str, identity: Identity) -> Result<Arc<Self>, RedTeamError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(prepare("a server"))?
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key);
        let mut config = config.map_err(prepare("a server"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(Self {
            word: word.to_owned(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            connections: AtomicU64::new(0),
            heard: Mutex::default(),
        }))
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::SeqCst);
            let own = Arc::clone(&self);
            tokio::spawn(async move { own.connection(stream).await });
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Whether it was told some text, inside TLS or not.
    pub(crate) fn heard(&self, text: &str) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        memchr::memmem::find(&heard, text.as_bytes()).is_some()
    }

    pub(crate) fn forget(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn hear(&self, bytes: &[u8]) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend_from_slice(bytes);
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let mut first = [0];
        match timeout(PATIENCE, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == HANDSHAKE => {
                let Ok(stream) = self.acceptor.accept(stream).await else {
                    return;
                };
                let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if two {
                    self.http2(stream).await;
                } else {
                    let _ = self.http1(stream).await;
                }
            }
            Ok(Ok(1)) => {
                let _ = self.http1(stream).await;
            }
            _ => {}
        }
    }

    /// One request after the other, as long as they come.
    async fn http1<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some((head, body)) = self.request(&mut stream, &mut buffer).await? else {
                return Ok(());
            };
            let answer = self.answer(&head, &body);
            stream.write_all(&answer.wire()).await?;
        }
    }

    /// The next request: a head and a body, whose length is told by the first of two ways that fits.
    async fn request<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<(String, Vec<u8>)>> {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break buffer.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.more(stream, buffer).await? {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let value = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            let mut named = lines.filter(|(own, _)| own.trim().eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value.trim().to_lowercase())
        };
        let mut body = Vec::new();
        if value("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            loop {
                if let Some((length, whole)) = chunk(buffer) {
                    let piece: Vec<u8> = buffer.drain(..whole).collect();
                    let start = whole - length - 2;
                    body.extend_from_slice(&piece[start..start + length]);
                    if length == 0 {
                        break;
                    }
                } else if !self.more(stream, buffer).await? {
                    break;
                }
            }
        } else if let Some(length) = value("content-length").and_then(|text| text.parse::<usize>().ok()) {
            while buffer.len() < length && self.more(stream, buffer).await? {}
            body = buffer.drain(..length.min(buffer.len())).collect();
        }
        Ok(Some((head, body)))
    }

    async fn more<S: AsyncRead + Unpin>(&self, stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let length = timeout(PATIENCE, stream.read(&mut piece)).await.unwrap_or(Ok(0))?;
        self.hear(&piece[..length]);
        buffer.extend_from_slice(&piece[..length]);
        Ok(length > 0)
    }

    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: Arc<Self>, stream: S) {
        let service = service_fn(move |request: Request<Incoming>| {
            let own = Arc::clone(&self);
            async move { Ok::<_, Infallible>(own.answer_http2(request).await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = connection.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer_http2(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut head = format!("{} {}\r\n", parts.method, parts.uri);
        for (name, value) in &parts.headers {
            head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
        }
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        self.hear(head.as_bytes());
        self.hear(&body);
        let answer = self.answer(&head, &body);
        let mut response = Response::builder().status(answer.status);
        for (name, value) in &answer.headers {
            response = response.header(name.as_str(), value.as_str());
        }
        response.body(Full::new(Bytes::from(answer.body))).unwrap_or_default()
    }

    /// Whatever is asked: the word and the path, and by some paths what was told, in some form.
    fn answer(&self, head: &str, body: &[u8]) -> Answer {
        let target = head.split_whitespace().nth(1).unwrap_or_default();
        let after = target.split_once("://").map_or(target, |(_, rest)| rest);
        let path = after.find('/').map_or(after, |at| &after[at..]);
        let told = [head.as_bytes(), body].concat();
        let authorization = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(name, value)| name.eq_ignore_ascii_case("authorization").then_some(value))
            .unwrap_or_default();
        let mut answer = Answer {
            status: 200,
            headers: Vec::new(),
            body: format!("{} {path}\n", self.word).into_bytes(),
            chunked: false,
        };
        let mut header = |name: &str, value: String| answer.headers.push((name.to_owned(), value));
        let last = path.split('?').next().unwrap_or_default().rsplit('/').next();
        match last.unwrap_or_default() {
            "echo" => answer.body = told,
            "chunked" => (answer.body, answer.chunked) = (told, true),
            "error" => (answer.status, answer.body) = (500, told),
            "header" => {
                header("x-told", authorization.to_owned());
                header("set-cookie", format!("told={authorization}"));
            }
            "redirect" => {
                answer.status = 302;
                header(
                    "location",
                    format!("/elsewhere?told={}", authorization.replace(' ', "+")),
                );
            }
            "hex" => answer.body = hex::encode(told).into_bytes(),
            "gzip" => {
                header("content-encoding", "gzip".to_owned());
                let mut squeezed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                let _ = squeezed.write_all(&told);
                answer.body = squeezed.finish().unwrap_or_default();
            }
            _ => {}
        }
        answer
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Answer {
    fn wire(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Told\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if !self.chunked {
            bytes.extend(format!("content-length: {}\r\n\r\n", self.body.len()).bytes());
            bytes.extend_from_slice(&self.body);
            return bytes;
        }
        bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
        for piece in self.body.chunks(3) {
            bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
            bytes.extend_from_slice(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }
}

/// The content's length of the chunk in front, and its own with everything around it.
fn chunk(buffer: &[u8]) -> Option<(usize, usize)> {
    let line = buffer.windows(2).position(|window| window == b"\r\n")?;
    let digits = String::from_utf8_lossy(&buffer[..line]);
    let length = usize::from_str_radix(digits.split(';').next()?.trim(), 16).unwrap_or(0);
    let whole = line + 2 + length + 2;
    (buffer.len() >= whole).then_some((length, whole))
}
