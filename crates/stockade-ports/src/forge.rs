//! The way to a forge's API (GitHub, and servers of that shape).

use async_trait::async_trait;
use bytes::Bytes;

/// Carries one request to one forge, with the credential for it. The caller never sees the
/// credential, and the implementation decides where the request may go.
#[async_trait]
pub trait ForgeHttp: Send + Sync {
    /// The origin and base path of the API, without a slash at the end, such as
    /// `https://api.github.com` or `https://git.example/api/v3`.
    fn api(&self) -> &str;

    /// Sends a request whose URI is a path below [`ForgeHttp::api`] and reads the whole answer.
    /// Redirects are not followed.
    ///
    /// # Errors
    ///
    /// [`ForgeError`] when there is no answer; an answer of any status is none.
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, ForgeError>;
}

/// Why a forge did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// It could not be reached, or broke off.
    #[error("the server could not be reached: {0}")]
    Unreachable(String),
    /// The gate or the policy refused.
    #[error("refused by {rule}: {reason}")]
    Refused {
        /// The rule.
        rule: String,
        /// Why, for a reader.
        reason: String,
    },
    /// The answer was larger than the implementation reads.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
}
