//! A typed client: one method per route, typed errors, and an event stream that resumes.

mod calls;
mod error;
mod stream;

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

pub use calls::ListRuns;
pub use error::ClientError;
pub use stream::{EventStream, Reconnect};

use crate::{Problem, v1::PROBLEM_JSON};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a whole call may take; event streams have no such end.
const CALL: Duration = Duration::from_secs(60);

/// Talks to one gateway as one token.
///
/// Takes no proxy from the environment and follows no redirect, so the token goes to the
/// named host and nowhere else. A base URL with `https` needs a `rustls` crypto provider
/// installed by the binary (`rustls::crypto::ring::default_provider().install_default()`);
/// one with `http` needs nothing. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the gateway at `base` (`http://127.0.0.1:7070`), asking with `token`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] when the URL or the token cannot be used.
    pub fn new(base: &str, token: &str) -> Result<Self, ClientError> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ClientError::Config("the token has characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self {
            token: Some(value),
            ..Self::anonymous(base)?
        })
    }

    /// A client without a token, for [`Client::health`] and [`Client::ready`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] when the URL cannot be used.
    pub fn anonymous(base: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Config(format!("'{base}' is not the URL of a gateway: {why}"));
        let url = Url::parse(base).map_err(|error| wrong(&error.to_string()))?;
        if url.cannot_be_a_base() || url.host().is_none() {
            return Err(wrong("it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("leave out user, password, query and fragment"));
        }
        let builder = match url.scheme() {
            "http" => reqwest::Client::builder().tls_backend_preconfigured(no_tls()?),
            "https" if rustls::crypto::CryptoProvider::get_default().is_some() => {
                reqwest::Client::builder().https_only(true)
            }
            "https" => return Err(wrong("this program has no crypto provider installed, so https is off")),
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        let http = builder
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| ClientError::Config(error.to_string()))?;
        Ok(Self {
            http,
            base: url,
            token: None,
        })
    }

    /// Where the gateway is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ClientError::Config(format!("'{}' cannot have a path", self.base)))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut()
                .extend_pairs(query.iter().map(|(k, v)| (k, v.as_str())));
        }
        Ok(url)
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, String)]) -> Result<RequestBuilder, ClientError> {
        let mut request = self.http.request(method, self.url(path, query)?);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }

    /// Sends a request and turns every refusal into an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|error| ClientError::unreachable(&self.base, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let is_problem = has_type(response.headers(), PROBLEM_JSON);
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return ClientError::unreachable(&self.base, &error),
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => ClientError::Problem(Box::new(problem)),
            _ => ClientError::Protocol(format!(
                "{} answered {status} without saying why; is it a Stockade gateway?",
                self.base
            )),
        }
    }

    async fn bytes(&self, request: RequestBuilder) -> Result<Bytes, ClientError> {
        let response = self.send(request.timeout(CALL)).await?;
        response
            .bytes()
            .await
            .map_err(|error| ClientError::unreachable(&self.base, &error))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let body = self.bytes(request).await?;
        serde_json::from_slice(&body).map_err(|error| {
            ClientError::Protocol(format!(
                "{error}; are this program and the gateway of the same version?"
            ))
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path, query)?).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(Method::POST, path, &[])?.json(body);
        if let Some(key) = key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| ClientError::Config("the idempotency key has characters no header can hold".to_owned()))?;
            request = request.header("idempotency-key", value);
        }
        self.json(request).await
    }
}

fn has_type(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}

/// A TLS configuration that trusts nobody: given to clients that never speak TLS, because
/// the HTTP library would otherwise demand a process-wide crypto provider from them too.
fn no_tls() -> Result<rustls::ClientConfig, ClientError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Config(error.to_string()))?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_urls_are_refused_and_plain_ones_are_not() {
        assert!(Client::new("http://127.0.0.1:1", "stk_x").is_ok());
        assert!(Client::new("http://127.0.0.1:1/behind/a/proxy/", "stk_x").is_ok());
        for wrong in [
            "",
            "127.0.0.1:1",
            "ftp://h/",
            "http://user:pw@h/",
            "http://h/?q",
            "https://h/",
        ] {
            let error = Client::new(wrong, "stk_x").unwrap_err();
            assert!(matches!(error, ClientError::Config(_)), "{wrong}: {error}");
        }
        assert!(matches!(Client::new("http://h/", "a\nb"), Err(ClientError::Config(_))));
    }

    #[test]
    fn the_token_is_not_printed() {
        let client = Client::new("http://127.0.0.1:1", "stk_secret").unwrap();
        assert!(!format!("{client:?}").contains("stk_secret"));
    }

    #[test]
    fn path_parts_cannot_leave_their_place() {
        let client = Client::new("http://h/base/", "t").unwrap();
        let url = client
            .url(&["v1", "runs", "../../x?y", "events"], &[("after", "a&b".to_owned())])
            .unwrap();
        assert_eq!(url.as_str(), "http://h/base/v1/runs/..%2F..%2Fx%3Fy/events?after=a%26b");
    }
}
