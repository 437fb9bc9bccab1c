//! Responses of the model gateway.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use stockade_domain::Wire;
use stockade_gate::model::ErrorBody;
use stockade_ports::{InternalBody, InternalResponse, ModelResponse};

const OVERHEAD: HeaderName = HeaderName::from_static("x-stockade-overhead-ms");

/// The model's answer as it comes; the time spent before the door is added to the door's own.
pub(super) fn model(answer: ModelResponse, before_door: Duration) -> InternalResponse {
    let body = answer.body.map_ok(Frame::data).map_err(Into::into);
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    add_overhead(response.headers_mut(), before_door);
    response
}

fn add_overhead(headers: &mut HeaderMap, more: Duration) {
    let door = headers
        .get(&OVERHEAD)
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let total = door.unwrap_or_default() + more.as_secs_f64() * 1000.0;
    if let Ok(value) = HeaderValue::try_from(format!("{total:.3}")) {
        headers.insert(OVERHEAD, value);
    }
}

/// An error in the format of its wire.
pub(super) fn error(error: &ErrorBody) -> InternalResponse {
    whole(error.status, error.body.clone())
}

pub(super) fn json(status: StatusCode, value: &Value) -> InternalResponse {
    whole(status, Bytes::from(value.to_string()))
}

/// The answer to a WebSocket: go on over HTTP (RFC 9110, section 15.5.22).
pub(super) fn upgrade_required() -> InternalResponse {
    let message = "the model gateway speaks HTTP only; send the request as a POST";
    let body = ErrorBody::new(
        Wire::OpenaiResponses,
        StatusCode::UPGRADE_REQUIRED,
        "upgrade_required",
        message,
    );
    let mut response = error(&body);
    response
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

pub(super) fn method_not_allowed(wire: Wire, allow: &'static str) -> InternalResponse {
    let message = format!("this path is asked with {allow}");
    let body = ErrorBody::new(wire, StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", &message);
    let mut response = error(&body);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn whole(status: StatusCode, body: Bytes) -> InternalResponse {
    let body: InternalBody = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
