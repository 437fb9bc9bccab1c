//! One program that speaks CGI (RFC 3875), which is how `git http-backend` is made to be run.

use std::{path::Path, process::Stdio};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::serve::status;

/// Runs `git http-backend` for one request.
pub(crate) async fn backend(root: &Path, user: Option<&str>, request: Request<Bytes>) -> Response<Bytes> {
    let (parts, body) = request.into_parts();
    let text = |name: HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .env("REMOTE_ADDR", "127.0.0.1");
    if let Some(user) = user {
        command.env("REMOTE_USER", user);
    }
    if let Some(version) = parts.headers.get("git-protocol").and_then(|v| v.to_str().ok()) {
        command.env("GIT_PROTOCOL", version);
    }
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = spawned else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&body).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output
        .ok()
        .and_then(|output| read(&output.stdout))
        .unwrap_or_else(|| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// Headers, an empty line, the body.
fn read(output: &[u8]) -> Option<Response<Bytes>> {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut response = Response::new(Bytes::copy_from_slice(&output[end + 4..]));
    for line in std::str::from_utf8(&output[..end]).ok()?.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.get(..3)?.parse().ok()?;
            continue;
        }
        let name: HeaderName = name.parse().ok()?;
        response.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
    }
    Some(response)
}
