//! What a forge says when it does not do what it was asked.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde::Deserialize;
use stockade_domain::Failure;

use crate::text;

/// GitHub's error document.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    message: String,
    errors: Vec<Item>,
}

/// One of its errors: an object, or only words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Item {
    Object {
        #[serde(default)]
        field: String,
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    },
    Words(String),
}

impl Item {
    fn words(&self) -> String {
        match self {
            Self::Words(words) => words.clone(),
            Self::Object { message, .. } if !message.is_empty() => message.clone(),
            Self::Object { field, code, .. } => format!("{field} is {code}"),
        }
    }
}

fn document(body: &Bytes) -> Document {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Whether the branch has an open pull request already.
pub(super) fn already_exists(body: &Bytes) -> bool {
    document(body)
        .errors
        .iter()
        .any(|item| item.words().starts_with("A pull request already exists"))
}

/// An answer that is a no, as a failure with the server's words.
pub(super) fn refused(response: &Response<Bytes>) -> Failure {
    let status = response.status();
    let read = document(response.body());
    let mut words = match read.message.is_empty() {
        true => status.canonical_reason().unwrap_or("no words").to_owned(),
        false => read.message.clone(),
    };
    for item in read.errors.iter().take(10) {
        words.push_str("; ");
        words.push_str(&item.words());
    }
    let words = text::redact(text::clip(&words, 1000).0);
    let message = format!("the server answered {}: {words}", status.as_u16());
    if is_limited(response) {
        return Failure::transient("rate_limited", message);
    }
    match status {
        StatusCode::UNAUTHORIZED => Failure::terminal("unauthorized", message)
            .with_hint("the credential of this git host is wrong or has ended; store a new one"),
        StatusCode::FORBIDDEN => Failure::terminal("unauthorized", message)
            .with_hint("the credential of this git host may not open pull requests; give it that permission"),
        StatusCode::NOT_FOUND => Failure::terminal("repo_not_found", message)
            .with_hint("check the repository's name; a private repository looks missing without access"),
        _ if status.is_redirection() => {
            Failure::terminal("repo_not_found", message).with_hint("the repository has another name now; use that one")
        }
        _ if status.is_server_error() => Failure::transient("forge_unreachable", message),
        _ => Failure::terminal("pull_request_refused", message),
    }
}

/// GitHub limits with 429, and with 403 where a header says so.
fn is_limited(response: &Response<Bytes>) -> bool {
    let headers = response.headers();
    let used_up = headers
        .get("x-ratelimit-remaining")
        .is_some_and(|left| left.as_bytes() == b"0");
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => used_up || headers.contains_key(header::RETRY_AFTER),
        _ => false,
    }
}
