//! A git server over smart HTTP, with basic authentication.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use tokio_rustls::TlsAcceptor;

use crate::{
    cgi,
    serve::{Running, Seen, start_over, status},
    tls::TestAuthority,
};

/// Who may come in.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The user's name.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl Credential {
    /// The value of the header `Authorization` (RFC 7617).
    pub fn header(&self) -> String {
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }
}

/// Serves the bare repositories below a directory. Who pushes needs `http.receivepack` set in
/// the repository, or to be logged in.
#[derive(Debug)]
pub struct GitServer {
    running: Running,
    root: PathBuf,
}

impl GitServer {
    /// Starts it on a free port of loopback. Without a credential everybody may read.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(root: &Path, credential: Option<Credential>) -> std::io::Result<Self> {
        Self::start_over(None, root, credential).await
    }

    /// The same over TLS, with a certificate of that authority for these names.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start_tls(
        authority: &TestAuthority,
        names: &[&str],
        root: &Path,
        credential: Option<Credential>,
    ) -> std::io::Result<Self> {
        Self::start_over(Some(authority.acceptor(names)), root, credential).await
    }

    async fn start_over(
        tls: Option<TlsAcceptor>,
        root: &Path,
        credential: Option<Credential>,
    ) -> std::io::Result<Self> {
        let own = root.to_owned();
        let running = start_over(tls, move |request: Request<Bytes>| {
            let (root, credential) = (own.clone(), credential.clone());
            async move {
                if let Some(credential) = &credential
                    && request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes)
                        != Some(credential.header().as_bytes())
                {
                    return unauthorized();
                }
                cgi::backend(&root, credential.as_ref().map(|own| own.user.as_str()), request).await
            }
        });
        let running = running.await?;
        Ok(Self {
            running,
            root: root.to_owned(),
        })
    }

    /// Its port of loopback.
    pub fn port(&self) -> u16 {
        self.running.address.port()
    }

    /// `http://127.0.0.1:port`, of a server without TLS.
    pub fn origin(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// The directory of the repositories.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.running.log.all()
    }
}

fn unauthorized() -> Response<Bytes> {
    let mut response = status(StatusCode::UNAUTHORIZED);
    let ask = HeaderValue::from_static("Basic realm=\"git\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    response
}
