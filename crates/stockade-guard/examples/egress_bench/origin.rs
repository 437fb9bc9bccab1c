//! The server that is asked: TLS, HTTP/1.1, a small answer or as many bytes as the path says.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{INSPECTED, ORIGIN, PASSED, asked, tell};

/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (acceptor, root) = identity();
    runtime.spawn(async move {
        let listener = TcpListener::bind(ORIGIN).await.expect("the address is free");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(stream).await {
                    while answer(&mut tls).await.is_some() {}
                }
            });
        }
    });
    tell(&json!({ "root": root }));
    while asked() {}
}

fn identity() -> (TlsAcceptor, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let names = vec![PASSED.to_owned(), INSPECTED.to_owned()];
    let leaf = CertificateParams::new(names)
        .expect("names")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a certificate");
    // Every connection is a full handshake, whoever carries it.
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), root)
}

/// One request; `None` when the client is done.
async fn answer<S>(stream: &mut S) -> Option<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let path = std::str::from_utf8(&head).ok()?.split(' ').nth(1)?;
    let length: usize = path.trim_start_matches('/').parse().unwrap_or(16);
    let start =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n");
    let mut first = start.into_bytes();
    first.resize(first.len() + length.min(PIECE), b'x');
    stream.write_all(&first).await.ok()?;
    let piece = vec![b'x'; PIECE];
    let mut left = length.saturating_sub(PIECE);
    while left > 0 {
        let now = left.min(PIECE);
        stream.write_all(&piece[..now]).await.ok()?;
        left -= now;
    }
    stream.flush().await.ok()
}
