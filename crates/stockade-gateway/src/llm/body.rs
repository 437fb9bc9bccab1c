//! A client's body, whole, within limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use stockade_domain::Wire;
use stockade_gate::model::ErrorBody;
use stockade_ports::InternalBody;

/// Why a body did not come whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request body did not arrive in time")]
    TooSlow,
    #[error("the request body broke off")]
    Broken,
}

impl BodyError {
    pub(super) fn body(&self, wire: Wire) -> ErrorBody {
        let (status, kind) = match self {
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "timeout_error"),
            Self::Broken => (StatusCode::BAD_REQUEST, "invalid_request_error"),
        };
        ErrorBody::new(wire, status, kind, &self.to_string())
    }
}

pub(super) async fn read(
    headers: &HeaderMap,
    body: InternalBody,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse().ok())
        .is_some_and(|length: u64| length > limit as u64)
    {
        return Err(BodyError::TooLarge(limit));
    }
    match tokio::time::timeout(timeout, collect(body, limit)).await {
        Ok(whole) => whole,
        Err(_) => Err(BodyError::TooSlow),
    }
}

async fn collect(mut body: InternalBody, limit: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}
