//! The model port: one call to a language model in one of three wire formats.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use stockade_domain::{FailureClass, Wire};

/// Calls language models.
#[async_trait]
pub trait ModelProvider: Send + Sync {
    /// Name as configuration and receipts spell it.
    fn name(&self) -> &str;

    /// Wires it answers. A request in another wire is refused, never translated.
    fn wires(&self) -> &[Wire];

    /// Sends a request on and returns the answer as it comes.
    ///
    /// The body is sent byte for byte. An HTTP error of the upstream is an `Ok` response
    /// with that status; [`ModelError`] means there was no answer. Dropping the future or
    /// the stream ends the call.
    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError>;
}

/// A request to a model.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Wire format of the body.
    pub wire: Wire,
    /// Query string without `?`, for example `beta=true`.
    pub query: Option<String>,
    /// Headers of the client without hop-by-hop headers, credentials and identity.
    pub headers: HeaderMap,
    /// The body as the client sent it.
    pub body: Bytes,
}

/// An answer of a model.
pub struct ModelResponse {
    /// Status of the upstream.
    pub status: StatusCode,
    /// Headers of the upstream without hop-by-hop headers.
    pub headers: HeaderMap,
    /// The body as it comes; `text/event-stream` for a streamed answer.
    pub body: BoxStream<'static, Result<Bytes, ModelError>>,
}

/// Why there was no answer, or why it broke off.
#[derive(Debug, Clone, thiserror::Error)]
#[error("model provider '{provider}': {message}")]
pub struct ModelError {
    /// Name of the provider.
    pub provider: String,
    /// What went wrong, without secrets.
    pub message: String,
    /// Whether trying again may help.
    pub class: FailureClass,
}

/// An error body in the format of a wire, so that the client's own library understands it.
///
/// `kind` is the machine-readable type, for example `invalid_request_error`.
pub fn wire_error(wire: Wire, kind: &str, message: &str) -> Bytes {
    let body = match wire {
        Wire::AnthropicMessages => json!({ "type": "error", "error": { "type": kind, "message": message } }),
        Wire::OpenaiChat | Wire::OpenaiResponses => {
            json!({ "error": { "message": message, "type": kind, "param": null, "code": kind } })
        }
    };
    Bytes::from(body.to_string())
}
