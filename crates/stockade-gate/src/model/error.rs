//! Why a model call is not answered, and how each wire is told.

use bytes::Bytes;
use http::StatusCode;
use stockade_domain::{FailureClass, Wire};
use stockade_ports::{ModelError, StoreError, wire_error};

use super::PeekError;
use crate::Refusal;

/// Why a model call is not answered.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The gate said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The provider did not answer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The body is not a request.
    #[error(transparent)]
    BadRequest(#[from] PeekError),
    /// The provider speaks other wires.
    #[error("the model provider '{provider}' does not speak {}; it speaks {offered}", wire.as_str())]
    Wire {
        /// Name of the provider.
        provider: String,
        /// The wire asked for.
        wire: Wire,
        /// The wires it speaks, in words.
        offered: String,
    },
    /// An approver changed the call, which cannot be done to a model call.
    #[error("the approver changed this model call; it can be approved or rejected, not edited")]
    Edited,
}

/// An error as a client of a wire gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// The status.
    pub status: StatusCode,
    /// JSON in the wire's own format.
    pub body: Bytes,
}

impl ErrorBody {
    /// An error in the format of a wire.
    pub fn new(wire: Wire, status: StatusCode, kind: &str, message: &str) -> Self {
        Self {
            status,
            body: wire_error(wire, kind, message),
        }
    }
}

impl DoorError {
    /// The error as a client of this wire gets it.
    ///
    /// A refusal is final for the run, so clients should stop asking. Claude Code, Codex and
    /// OpenCode all stop at once on 400 and on nothing else: Codex repeats 402, 403 and 409
    /// five times, Claude Code and OpenCode repeat 409 and 429. What may pass is a 502 or 503.
    pub fn body(&self, wire: Wire) -> ErrorBody {
        let (status, kind) = self.status_and_kind();
        ErrorBody::new(wire, status, kind, &self.to_string())
    }

    fn status_and_kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Refused(Refusal::Exhausted { .. }) => (StatusCode::BAD_REQUEST, "budget_exceeded"),
            Self::Refused(Refusal::Unrecorded(StoreError::Unavailable(_))) => {
                (StatusCode::SERVICE_UNAVAILABLE, "api_error")
            }
            Self::Refused(_) | Self::Edited => (StatusCode::BAD_REQUEST, "permission_error"),
            Self::Model(error) => match error.class {
                FailureClass::Terminal => (StatusCode::BAD_REQUEST, "api_error"),
                FailureClass::Transient | FailureClass::Unknown => (StatusCode::BAD_GATEWAY, "api_error"),
            },
            Self::BadRequest(_) | Self::Wire { .. } => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        }
    }
}
