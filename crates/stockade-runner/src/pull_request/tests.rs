use std::{path::Path, process::Command, sync::Mutex};

use async_trait::async_trait;
use http::HeaderValue;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use stockade_domain::FailureClass;
use stockade_origins::GitHubServer;

use super::*;

const TOKEN: &str = "ghs_0000";

/// A client as the binary has one: it knows the origin and puts the credential in.
struct Client {
    api: String,
    token: &'static str,
}

#[async_trait]
impl ForgeHttp for Client {
    fn api(&self) -> &str {
        &self.api
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        let lost = |e: &dyn std::fmt::Display| ForgeError::Unreachable(e.to_string());
        let host = self.api.trim_start_matches("http://");
        let stream = tokio::net::TcpStream::connect(host).await.map_err(|e| lost(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| lost(&e))?;
        tokio::spawn(connection);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        headers.insert(header::AUTHORIZATION, format!("Bearer {}", self.token).parse().unwrap());
        let (parts, body) = sender
            .send_request(request.map(Full::new))
            .await
            .map_err(|e| lost(&e))?
            .into_parts();
        Ok(Response::from_parts(
            parts,
            body.collect().await.map_err(|e| lost(&e))?.to_bytes(),
        ))
    }
}

/// A server that says what it is told, and remembers nothing.
struct Says(Mutex<Vec<Response<Bytes>>>);

impl Says {
    fn one(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Self {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Self(Mutex::new(vec![response.body(Bytes::from(body.to_owned())).unwrap()]))
    }
}

#[async_trait]
impl ForgeHttp for Says {
    fn api(&self) -> &str {
        "https://api.example"
    }

    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        let next = self.0.lock().unwrap().pop();
        next.ok_or_else(|| ForgeError::Unreachable("gone".to_owned()))
    }
}

fn git(dir: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    git.args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
        .args(args)
        .current_dir(dir);
    assert!(git.status().unwrap().success(), "git {args:?}");
}

/// `octo/hello` with a branch `fix` in front of `main` and a branch `same` that is not.
fn repository(root: &Path) {
    let (work, bare) = (root.join("work"), root.join("octo/hello.git"));
    std::fs::create_dir_all(&work).unwrap();
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    git(&work, &["commit", "--quiet", "--allow-empty", "-m", "one"]);
    git(&work, &["branch", "same"]);
    git(&work, &["checkout", "--quiet", "-b", "fix"]);
    git(&work, &["commit", "--quiet", "--allow-empty", "-m", "two"]);
    git(root, &["clone", "--quiet", "--bare", "work", bare.to_str().unwrap()]);
}

fn draft(head: &str, base: &str) -> PullRequestDraft {
    PullRequestDraft::new(
        "octo/hello".parse().unwrap(),
        head,
        base,
        "Fix & mend",
        "Because.\n\n`x` < 1",
    )
    .unwrap()
}

#[tokio::test]
async fn a_pull_request_is_opened_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let server = GitHubServer::start(dir.path(), TOKEN).await.unwrap();
    let client = Client {
        api: server.origin(),
        token: TOKEN,
    };
    let first = open_pull_request(&client, &draft("fix", "main").as_draft(true))
        .await
        .unwrap();
    let url = "https://github.example/octo/hello/pull/1".to_owned();
    assert_eq!(
        first,
        OpenPullRequest {
            number: 1,
            url: url.clone(),
            existed: false
        }
    );
    let opened = &server.pulls()[0];
    assert_eq!(opened["title"], "Fix & mend");
    assert_eq!(opened["body"], "Because.\n\n`x` < 1");
    assert_eq!(
        (&opened["draft"], &opened["head"]["ref"]),
        (&json!(true), &json!("fix"))
    );
    let again = open_pull_request(&client, &draft("fix", "main")).await.unwrap();
    assert_eq!(
        again,
        OpenPullRequest {
            number: 1,
            url,
            existed: true
        }
    );
    // Into another branch it is another one, and a closed one is none.
    assert_eq!(
        open_pull_request(&client, &draft("fix", "same")).await.unwrap().number,
        2
    );
    server.close(1);
    let third = open_pull_request(&client, &draft("fix", "main")).await.unwrap();
    assert_eq!((third.number, third.existed), (3, false));
}

#[tokio::test]
async fn what_the_server_refuses_comes_with_its_words() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let server = GitHubServer::start(dir.path(), TOKEN).await.unwrap();
    let good = Client {
        api: server.origin(),
        token: TOKEN,
    };
    let bad = Client {
        api: server.origin(),
        token: "ghs_1111",
    };
    let missing = PullRequestDraft::new("octo/other".parse().unwrap(), "fix", "main", "t", "").unwrap();
    for (client, draft, code, words) in [
        (
            &good,
            draft("same", "main"),
            "pull_request_refused",
            "No commits between main and same",
        ),
        (
            &good,
            draft("nowhere", "main"),
            "pull_request_refused",
            "head is invalid",
        ),
        (
            &good,
            draft("fix", "nowhere"),
            "pull_request_refused",
            "base is invalid",
        ),
        (&good, missing, "repo_not_found", "Not Found"),
        (&bad, draft("fix", "main"), "unauthorized", "Bad credentials"),
    ] {
        let failure = open_pull_request(client, &draft).await.unwrap_err();
        assert_eq!(failure.code, code);
        assert!(failure.message.contains(words), "{words}: {}", failure.message);
    }
    assert!(server.pulls().is_empty());
}

#[tokio::test]
async fn every_kind_of_no_has_its_class() {
    for (says, code, class) in [
        (
            Says::one(403, &[], r#"{"message":"Resource not accessible by integration"}"#),
            "unauthorized",
            FailureClass::Terminal,
        ),
        (
            Says::one(
                403,
                &[("x-ratelimit-remaining", "0")],
                r#"{"message":"API rate limit exceeded"}"#,
            ),
            "rate_limited",
            FailureClass::Transient,
        ),
        (
            Says::one(403, &[("retry-after", "60")], r#"{"message":"secondary rate limit"}"#),
            "rate_limited",
            FailureClass::Transient,
        ),
        (Says::one(429, &[], ""), "rate_limited", FailureClass::Transient),
        (
            Says::one(307, &[], r#"{"message":"Moved"}"#),
            "repo_not_found",
            FailureClass::Terminal,
        ),
        (
            Says::one(502, &[], "<html>"),
            "forge_unreachable",
            FailureClass::Transient,
        ),
        (
            Says::one(
                422,
                &[],
                r#"{"message":"Validation Failed","errors":["Draft pull requests are not supported"]}"#,
            ),
            "pull_request_refused",
            FailureClass::Terminal,
        ),
        (Says(Mutex::default()), "forge_unreachable", FailureClass::Transient),
    ] {
        let failure = open_pull_request(&says, &draft("fix", "main")).await.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.class),
            (code, class),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn an_answer_about_something_else_is_not_believed() {
    let answer = |head: &str, url: &str| {
        format!(r#"{{"number":7,"html_url":"{url}","state":"open","head":{{"ref":"{head}"}},"base":{{"ref":"main"}}}}"#)
    };
    let good = Says::one(201, &[], &answer("fix", "https://x.example/7"));
    assert_eq!(
        open_pull_request(&good, &draft("fix", "main")).await.unwrap().number,
        7,
        "the control"
    );
    for body in [
        answer("other", "https://x.example/7"),
        answer("fix", "javascript:alert(1)"),
        answer("fix", "https://x.example/\\u001b[2J"),
        "[]".to_owned(),
        "no json".to_owned(),
    ] {
        let failure = open_pull_request(&Says::one(201, &[], &body), &draft("fix", "main"))
            .await
            .unwrap_err();
        assert_eq!(failure.code, "forge_answer", "{body}");
    }
}
