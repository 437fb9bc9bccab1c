//! The way to the API of a git host: requests of the installation's own, from outside of every
//! sandbox.
//!
//! One client goes to one origin. It follows no redirect, obeys no proxy of the environment, ends
//! after a time and reads an answer up to a size. It knows no credential: who sends a request has
//! put one in.

#![forbid(unsafe_code)]

use std::{error::Error, iter, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use reqwest::{Certificate, Client, redirect};
use stockade_ports::ForgeError;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take, its answer included. A forge looks at a whole change before it answers.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer, in bytes: a list of pull requests has some 25 KB for each of them.
pub const MAX_ANSWER: u64 = 4 << 20;

/// What is wrong with the address of an API.
#[derive(Debug, thiserror::Error)]
pub enum ForgeSetupError {
    /// It is no address that may be asked.
    #[error("'{0}' is no address of an API: it begins with https://, or with http:// on this machine")]
    Address(String),
    /// The client could not be made.
    #[error("the client for {address} cannot be made: {cause}")]
    Client {
        /// Whom it was for.
        address: String,
        /// Why.
        cause: String,
    },
}

/// A client of one origin.
#[derive(Debug, Clone)]
pub struct ForgeClient {
    base: String,
    origin: (String, String),
    client: Client,
}

impl ForgeClient {
    /// A client for everything below `base`. Servers are vouched for by the system's authorities
    /// and by `extra` ones (DER).
    ///
    /// # Errors
    ///
    /// [`ForgeSetupError`].
    pub fn new<'a>(base: &str, extra: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, ForgeSetupError> {
        let base = base.trim_end_matches('/');
        let origin = origin(base).ok_or_else(|| ForgeSetupError::Address(base.to_owned()))?;
        let failed = |error: reqwest::Error| ForgeSetupError::Client {
            address: base.to_owned(),
            cause: causes(&error),
        };
        let builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        let builder = match origin.0.as_str() {
            // Without TLS no certificate is needed, so a host without any can still be used.
            "http" => builder.tls_certs_only(iter::empty()),
            _ => {
                let extra: Result<Vec<_>, _> = extra.into_iter().map(Certificate::from_der).collect();
                builder.https_only(true).tls_certs_merge(extra.map_err(failed)?)
            }
        };
        Ok(Self {
            base: base.to_owned(),
            origin,
            client: builder.build().map_err(failed)?,
        })
    }

    /// The address it was made for, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request whose URI is a path below the base and reads the whole answer.
    ///
    /// # Errors
    ///
    /// As [`ForgeClient::send`].
    pub async fn send_below(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let whole = format!("{}{path}", self.base);
        *request.uri_mut() = whole
            .parse()
            .map_err(|_| unreachable("the request has no usable path"))?;
        self.send(request).await
    }

    /// Sends a request whose URI is absolute and of the client's origin, and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`ForgeError`] when there is no answer, it is too large, or the request would go elsewhere;
    /// an answer of any status is none.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        if origin(&request.uri().to_string()).as_ref() != Some(&self.origin) {
            return Err(ForgeError::Refused {
                rule: "stockade.git_host".to_owned(),
                reason: format!("the request would leave {}", self.base),
            });
        }
        let lost = |error: reqwest::Error| unreachable(&causes(&error));
        let request = reqwest::Request::try_from(request).map_err(lost)?;
        let mut answer = self.client.execute(request).await.map_err(lost)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if (body.len() + chunk.len()) as u64 > MAX_ANSWER {
                return Err(ForgeError::TooLarge(MAX_ANSWER));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

fn unreachable(why: &str) -> ForgeError {
    ForgeError::Unreachable(why.to_owned())
}

/// Scheme and authority of an address that may be asked: without TLS a credential would be
/// everybody's, but on this machine nobody is between.
fn origin(address: &str) -> Option<(String, String)> {
    let uri: Uri = address.parse().ok()?;
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let own = matches!(authority.host(), "127.0.0.1" | "localhost" | "[::1]");
    let scheme = uri.scheme_str()?;
    (scheme == "https" || scheme == "http" && own).then(|| (scheme.to_owned(), authority.as_str().to_ascii_lowercase()))
}

/// The innermost reason, without the URL.
fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let chain = iter::successors(error.source(), |&cause| cause.source());
    chain
        .last()
        .map_or_else(|| "the exchange failed".to_owned(), ToString::to_string)
}
