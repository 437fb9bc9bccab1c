//! Refusals as a client of HTTP reads them (RFC 9457).

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use stockade_ports::InternalBody;

use crate::session::Denial;

const PROBLEM: &str = "application/problem+json";

/// Marks an answer as the Guard's own: it did not come from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own;

/// The status of a refusal: rates come back, nothing else does.
pub(super) fn status_of(denial: &Denial) -> StatusCode {
    if denial.rule.ends_with("_per_minute") {
        StatusCode::TOO_MANY_REQUESTS
    } else {
        StatusCode::FORBIDDEN
    }
}

/// A problem document. `rule` is the rule behind it; after it `last` ends the connection.
pub(super) fn problem(status: StatusCode, rule: &str, detail: &str, last: bool) -> Response<InternalBody> {
    let body = Full::new(Bytes::from(document(status, rule, detail)));
    let mut response = Response::new(InternalBody::new(body.map_err(|never| match never {})));
    *response.status_mut() = status;
    response.extensions_mut().insert(Own);
    let headers = response.headers_mut();
    if status == StatusCode::TOO_MANY_REQUESTS {
        // Rates are counted within any minute.
        headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    if last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same as the bytes of a whole response.
pub(crate) fn problem_bytes(status: StatusCode, rule: &str, detail: &str) -> Vec<u8> {
    let body = document(status, rule, detail);
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        body.len(),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

fn document(status: StatusCode, rule: &str, detail: &str) -> Vec<u8> {
    let title = match status {
        StatusCode::FORBIDDEN => "refused by the sandbox's policy",
        StatusCode::BAD_REQUEST => "refused as a malformed request",
        StatusCode::MISDIRECTED_REQUEST => "refused: another host is meant",
        StatusCode::TOO_MANY_REQUESTS => "refused: too much at a time",
        _ => "the destination could not be reached",
    };
    json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "rule": rule })
        .to_string()
        .into_bytes()
}
