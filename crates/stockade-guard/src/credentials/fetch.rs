//! Requests that the Guard makes itself, to get a token.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use stockade_domain::Timestamp;
use stockade_ports::SecretValue;

/// How long a token may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer to a request for a token, in bytes; 256 KiB.
pub(super) const MOST: usize = 256 << 10;

/// A request went out and no answer came, or none may go out. Holds nothing of the request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// One HTTPS request of the Guard's own: to the host of its absolute `https` URL, whose certificate is verified and
/// whose address is judged as a sandbox's would be. Follows no redirect, sends no other header than `Host`,
/// `Content-Length` and those given, and reads at most 256 KiB of the answer.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Sends a request and reads the whole answer.
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError>;
}

/// A token that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Minted {
    pub(super) token: SecretValue,
    /// When it stops working, as the server said.
    pub(super) until: Timestamp,
}

/// Sends a request for a token. An error names the host and the status, and nothing that the server said: an answer
/// can hold what it was sent.
pub(super) async fn ask(fetch: &dyn Fetch, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    let answer = match tokio::time::timeout(PATIENCE, fetch.fetch(request)).await {
        Err(_) => return Err(format!("{host} did not answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => return Err(format!("{host} cannot be asked: {error}")),
        Ok(Ok(answer)) => answer,
    };
    match answer.body().len() > MOST {
        true => Err(format!("{host} answered more than {MOST} bytes")),
        false => Ok(answer),
    }
}

/// The words for a status that is no success.
pub(super) fn refusal(host: &str, status: StatusCode, hint: &str) -> String {
    format!("{host} answered {}{hint}", status.as_u16())
}

/// Takes a token out of an answer: visible ASCII (RFC 6750, section 2.1, and what servers send).
pub(super) fn token_of(text: String) -> Option<SecretValue> {
    let token = SecretValue::new(text.into_bytes());
    let fits = (1..=16 << 10).contains(&token.len()) && token.expose().iter().all(u8::is_ascii_graphic);
    fits.then_some(token)
}
