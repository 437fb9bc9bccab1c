//! A real endpoint: Anthropic-compatible or OpenAI-compatible, by URL and key.

use std::{error::Error as _, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use stockade_domain::{FailureClass, Wire};
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse};
use url::Url;

use crate::install_ring;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The API version sent when the client names none (Anthropic API, "Versions").
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Anthropic Messages, key in `x-api-key`.
    Anthropic,
    /// OpenAI Chat Completions and Responses, key in `Authorization: Bearer`.
    Openai,
}

/// How to reach an endpoint.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// Name as configuration and receipts spell it.
    pub name: String,
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Origin and path before `/v1/…`; a `/v1` at its end is understood.
    pub base_url: String,
    /// The key; `None` for endpoints that want none.
    pub api_key: Option<SecretString>,
    /// How long the endpoint may be silent, before its answer and between two pieces of it.
    pub idle_timeout: Duration,
}

/// Why an endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model provider '{provider}': {cause}")]
pub struct UpstreamError {
    /// Name of the provider.
    pub provider: String,
    /// What is wrong and what to do, without secrets.
    pub cause: String,
}

/// Sends calls to an endpoint, byte for byte.
#[derive(Debug)]
pub struct UpstreamProvider {
    name: String,
    kind: UpstreamKind,
    base: Url,
    key: Option<HeaderValue>,
    client: reqwest::Client,
}

impl UpstreamProvider {
    /// A provider for an endpoint. Follows no redirect and uses no proxy.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] when the URL or the key cannot be used, or TLS cannot be set up.
    pub fn new(config: UpstreamConfig) -> Result<Self, UpstreamError> {
        let wrong = |cause: String| UpstreamError {
            provider: config.name.clone(),
            cause,
        };
        let base = base(&config.base_url).map_err(|cause| wrong(cause.to_owned()))?;
        let key = match &config.api_key {
            Some(key) => Some(credential(config.kind, key).map_err(|cause| wrong(cause.to_owned()))?),
            None => None,
        };
        let client = client(&base, config.idle_timeout).map_err(|error| {
            wrong(format!(
                "TLS cannot be set up: {error}; install the system's CA certificates (package ca-certificates)"
            ))
        })?;
        Ok(Self {
            name: config.name,
            kind: config.kind,
            base,
            key,
            client,
        })
    }

    fn url(&self, request: &ModelRequest) -> Url {
        let path = match request.wire {
            Wire::AnthropicMessages => "v1/messages",
            Wire::OpenaiChat => "v1/chat/completions",
            Wire::OpenaiResponses => "v1/responses",
        };
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url.set_query(request.query.as_deref());
        url
    }

    fn headers(&self, client: &HeaderMap) -> HeaderMap {
        let mut headers = outgoing(client);
        if let Some(key) = &self.key {
            let name = match self.kind {
                UpstreamKind::Anthropic => HeaderName::from_static("x-api-key"),
                UpstreamKind::Openai => header::AUTHORIZATION,
            };
            headers.insert(name, key.clone());
        }
        if self.kind == UpstreamKind::Anthropic {
            headers
                .entry(HeaderName::from_static("anthropic-version"))
                .or_insert(ANTHROPIC_VERSION);
        }
        headers
            .entry(header::CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/json"));
        headers
    }

    fn failed(&self, error: &reqwest::Error) -> ModelError {
        ModelError {
            provider: self.name.clone(),
            message: reason(error),
            class: class_of(error),
        }
    }
}

#[async_trait]
impl ModelProvider for UpstreamProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn wires(&self) -> &[Wire] {
        match self.kind {
            UpstreamKind::Anthropic => &[Wire::AnthropicMessages],
            UpstreamKind::Openai => &[Wire::OpenaiChat, Wire::OpenaiResponses],
        }
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        if !self.wires().contains(&request.wire) {
            return Err(ModelError {
                provider: self.name.clone(),
                message: format!("it does not speak {}", request.wire.as_str()),
                class: FailureClass::Terminal,
            });
        }
        let sent = self
            .client
            .post(self.url(&request))
            .headers(self.headers(&request.headers))
            .body(request.body)
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let status = sent.status();
        if status.is_redirection() {
            return Err(ModelError {
                provider: self.name.clone(),
                message: format!("it answers with a redirect ({status}), which is not followed; correct its base_url"),
                class: FailureClass::Terminal,
            });
        }
        let headers = incoming(sent.headers());
        let name = self.name.clone();
        let body = sent.bytes_stream().map(move |piece| {
            piece.map_err(|error| ModelError {
                provider: name.clone(),
                message: format!("its answer broke off: {}", reason(&error)),
                class: FailureClass::Unknown,
            })
        });
        Ok(ModelResponse {
            status,
            headers,
            body: body.boxed(),
        })
    }
}

fn base(text: &str) -> Result<Url, &'static str> {
    let mut url =
        Url::parse(text).map_err(|_| "base_url is not a URL; expected for example https://host or https://host/v1")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("base_url must start with https:// or http:// and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("base_url holds credentials; put the key where keys belong");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("base_url must not have a query or a fragment");
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

fn credential(kind: UpstreamKind, key: &SecretString) -> Result<HeaderValue, &'static str> {
    let key = key.expose_secret().trim();
    if key.is_empty() {
        return Err("its key is empty");
    }
    let text = match kind {
        UpstreamKind::Anthropic => key.to_owned(),
        UpstreamKind::Openai => format!("Bearer {key}"),
    };
    let mut value =
        HeaderValue::try_from(text).map_err(|_| "its key holds characters that no HTTP header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(base: &Url, idle: Duration) -> Result<reqwest::Client, reqwest::Error> {
    install_ring();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(idle);
    // Without TLS no certificate is needed, so a host without any can still be used.
    let builder = if base.scheme() == "http" {
        builder.tls_certs_only(std::iter::empty())
    } else {
        builder
    };
    builder.build()
}

/// Headers that belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of a client that never reach an endpoint: credentials, and what is set anew.
///
/// `accept-encoding` is among them because a compressed answer could not be metered.
const NOT_SENT: &[&str] = &[
    "host",
    "content-length",
    "accept-encoding",
    "expect",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
];

fn outgoing(client: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(client);
    let keep = |name: &&HeaderName| {
        let name = name.as_str();
        !HOP_BY_HOP.contains(&name) && !NOT_SENT.contains(&name) && !named.iter().any(|n| n == name)
    };
    copy(client, keep)
}

fn incoming(upstream: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(upstream);
    let keep = |name: &&HeaderName| {
        let name = name.as_str();
        !HOP_BY_HOP.contains(&name) && name != "set-cookie" && !named.iter().any(|n| n == name)
    };
    copy(upstream, keep)
}

fn copy(from: &HeaderMap, keep: impl Fn(&&HeaderName) -> bool) -> HeaderMap {
    let kept = from.iter().filter(|(name, _)| keep(name));
    let mut headers = HeaderMap::with_capacity(from.len());
    for (name, value) in kept {
        headers.append(name, value.clone());
    }
    headers
}

/// Headers that `connection` itself declares to be of one connection.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

/// The innermost reasons, without the URL: it may hold what a person would not print.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        return "it was silent for too long".to_owned();
    }
    let what = if error.is_connect() {
        "it cannot be reached"
    } else {
        "the exchange failed"
    };
    match causes(error).last() {
        Some(deepest) => format!("{what}: {deepest}"),
        None => what.to_owned(),
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn class_of(error: &reqwest::Error) -> FailureClass {
    // A certificate that is refused stays refused.
    if causes(error).any(|cause| cause.is::<rustls::Error>()) {
        return FailureClass::Terminal;
    }
    if error.is_connect() {
        return FailureClass::Transient;
    }
    // The request was sent: what the endpoint did with it, nobody knows.
    if error.is_timeout() {
        return FailureClass::Unknown;
    }
    FailureClass::Unknown
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
