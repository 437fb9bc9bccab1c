//! Opens a pull request through an API of GitHub's shape (GitHub REST API, version 2022-11-28:
//! "Create a pull request", "List pull requests").
//!
//! Whether it may be opened is decided before: [`PullRequestDraft::action`] is what the gate is
//! asked, and everything the server is sent is in it.

mod answer;
mod patient;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use stockade_domain::{Failure, OpenPullRequest, PullRequestDraft};
use stockade_ports::{ForgeError, ForgeHttp};

use answer::{already_exists, refused};
pub(crate) use patient::Patient;

/// Longest address of a pull request that is believed.
const LONGEST_URL: usize = 2048;

/// What of an answer is used.
#[derive(Deserialize)]
struct Answer {
    number: u64,
    html_url: String,
    #[serde(default)]
    state: String,
    head: Side,
    base: Side,
}

#[derive(Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    name: String,
}

/// Opens it, or finds the open one from the same branch into the same branch.
///
/// # Errors
///
/// [`Failure`] with one of the codes `pull_request_refused` (the server's words are in it),
/// `unauthorized`, `repo_not_found`, `rate_limited`, `forge_unreachable`, `forge_answer`.
pub async fn open_pull_request(http: &dyn ForgeHttp, draft: &PullRequestDraft) -> Result<OpenPullRequest, Failure> {
    let body = json!({
        "title": draft.title(), "head": draft.head(), "base": draft.base(),
        "body": draft.body(), "draft": draft.is_draft(),
    });
    let path = format!("/repos/{}/pulls", draft.repository());
    let response = send(http, Method::POST, &path, Some(&body)).await?;
    match response.status() {
        StatusCode::CREATED => opened(&value(&response)?, draft, false),
        StatusCode::UNPROCESSABLE_ENTITY if already_exists(response.body()) => existing(http, draft).await,
        _ => Err(refused(&response)),
    }
}

/// The open pull request from the same branch into the same branch.
async fn existing(http: &dyn ForgeHttp, draft: &PullRequestDraft) -> Result<OpenPullRequest, Failure> {
    let (owner, head, base) = (draft.repository().owner(), draft.head(), draft.base());
    let query = format!(
        "state=open&head={}&base={}",
        encoded(&format!("{owner}:{head}")),
        encoded(base)
    );
    let path = format!("/repos/{}/pulls?{query}", draft.repository());
    let response = send(http, Method::GET, &path, None).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(&response));
    }
    let list = value(&response)?;
    let found = list.as_array().into_iter().flatten();
    let mut same = found.filter_map(|one| opened(one, draft, true).ok());
    same.next().ok_or_else(|| {
        let words = "the server says there is a pull request for this branch and does not list one";
        Failure::unknown("forge_answer", words)
    })
}

async fn send(
    http: &dyn ForgeHttp,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Response<Bytes>, Failure> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/vnd.github+json")
        .header(header::CONTENT_TYPE, "application/json")
        // GitHub refuses requests without one.
        .header(header::USER_AGENT, "stockade")
        .header("x-github-api-version", "2022-11-28")
        .body(bytes)
        .map_err(|e| Failure::unknown("forge_answer", format!("the request could not be made: {e}")))?;
    http.send(request).await.map_err(|error| match error {
        ForgeError::Unreachable(_) => Failure::transient("forge_unreachable", error.to_string()),
        ForgeError::Refused { .. } => Failure::terminal("refused", error.to_string()),
        ForgeError::TooLarge(_) => Failure::unknown("forge_answer", error.to_string()),
    })
}

fn value(response: &Response<Bytes>) -> Result<Value, Failure> {
    serde_json::from_slice(response.body()).map_err(|_| {
        let words = format!(
            "the server answered {} with something that is not JSON",
            response.status()
        );
        Failure::unknown("forge_answer", words)
    })
}

/// Believes an answer only when it is about what was asked.
fn opened(answer: &Value, draft: &PullRequestDraft, existed: bool) -> Result<OpenPullRequest, Failure> {
    let wrong = |what: &str| Failure::unknown("forge_answer", format!("the server's pull request {what}"));
    let answer = Answer::deserialize(answer).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    if answer.head.name != draft.head() || answer.base.name != draft.base() {
        return Err(wrong("is from or into another branch"));
    }
    if existed && answer.state != "open" {
        return Err(wrong("is not open"));
    }
    let web = answer.html_url.starts_with("https://") || answer.html_url.starts_with("http://");
    let plain = answer.html_url.bytes().all(|b| b.is_ascii_graphic());
    if !web || !plain || answer.html_url.len() > LONGEST_URL {
        return Err(wrong("has no usable address"));
    }
    Ok(OpenPullRequest {
        number: answer.number,
        url: answer.html_url,
        existed,
    })
}

/// Text in a query (RFC 3986: everything but unreserved characters is encoded).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
