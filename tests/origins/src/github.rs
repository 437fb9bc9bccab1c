//! An API of GitHub's shape over a directory of bare repositories: what the documentation of
//! the REST API (version 2022-11-28) says about pull requests, errors included.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    pulls::{Pulls, Repository},
    serve::{Running, Seen, start},
};

const DOCS: &str = "https://docs.github.com/rest";

/// The API, for repositories `owner/name` at `root/owner/name.git`.
#[derive(Debug)]
pub struct GitHubServer {
    running: Running,
    pulls: Arc<Mutex<Pulls>>,
    odd: Arc<Mutex<VecDeque<Odd>>>,
}

/// What a server does instead of what it should.
#[derive(Debug, Clone)]
enum Odd {
    /// It answers this, and does nothing.
    Says(u16, Vec<(&'static str, String)>, String),
    /// It does what it was asked, and its answer is lost on the way.
    Unheard,
    /// It takes the request and never answers.
    Silent,
}

#[derive(Clone)]
struct World {
    root: PathBuf,
    token: String,
    pulls: Arc<Mutex<Pulls>>,
    odd: Arc<Mutex<VecDeque<Odd>>>,
}

impl GitHubServer {
    /// Starts it on a free port of loopback. Everything needs the token.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(root: &Path, token: &str) -> std::io::Result<Self> {
        let pulls = Arc::new(Mutex::new(Pulls::default()));
        let odd = Arc::default();
        let world = World {
            root: root.to_owned(),
            token: token.to_owned(),
            pulls: Arc::clone(&pulls),
            odd: Arc::clone(&odd),
        };
        let running = start(move |request| {
            let world = world.clone();
            async move { world.oddly(request).await }
        });
        let running = running.await?;
        Ok(Self { running, pulls, odd })
    }

    /// `http://127.0.0.1:port`, the base of the API.
    pub fn origin(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.running.log.all()
    }

    /// Every pull request, as the API shows them.
    pub fn pulls(&self) -> Vec<Value> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Answers the next request with this instead, and does nothing.
    pub fn says(&self, status: u16, headers: &[(&'static str, String)], body: &str) {
        self.next(Odd::Says(status, headers.to_vec(), body.to_owned()));
    }

    /// Does what the next request asks for and loses the answer.
    pub fn loses_an_answer(&self) {
        self.next(Odd::Unheard);
    }

    /// Takes the next request and never answers it.
    pub fn falls_silent(&self) {
        self.next(Odd::Silent);
    }

    fn next(&self, odd: Odd) {
        self.odd.lock().unwrap_or_else(PoisonError::into_inner).push_back(odd);
    }

    /// Closes a pull request.
    pub fn close(&self, number: u64) {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).close(number);
    }
}

impl World {
    async fn oddly(&self, request: Request<Bytes>) -> Response<Bytes> {
        let next = self.odd.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match next {
            None => self.answer(request).await,
            Some(Odd::Says(status, headers, body)) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(Bytes::from(body)).unwrap_or_default()
            }
            Some(Odd::Unheard) => {
                let _ = self.answer(request).await;
                plain(StatusCode::BAD_GATEWAY, "the answer was lost")
            }
            Some(Odd::Silent) => std::future::pending().await,
        }
    }

    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        if header(header::USER_AGENT).is_none_or(<[u8]>::is_empty) {
            let words =
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header";
            return plain(StatusCode::FORBIDDEN, words);
        }
        let wanted = [format!("Bearer {}", self.token), format!("token {}", self.token)];
        if !wanted
            .iter()
            .any(|own| header(header::AUTHORIZATION) == Some(own.as_bytes()))
        {
            return error(StatusCode::UNAUTHORIZED, "Bad credentials", &[]);
        }
        let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let ["repos", owner, name, rest @ ..] = parts.as_slice() else {
            return error(StatusCode::NOT_FOUND, "Not Found", &[]);
        };
        let Some(repository) = Repository::find(&self.root, owner, name).await else {
            return error(StatusCode::NOT_FOUND, "Not Found", &[]);
        };
        match (rest, request.method()) {
            ([], &Method::GET) => json_of(StatusCode::OK, &repository.document()),
            (["pulls"], &Method::POST) => self.create(&repository, request.body()).await,
            (["pulls"], &Method::GET) => {
                let query = request.uri().query().unwrap_or_default().to_owned();
                json_of(StatusCode::OK, &json!(self.locked().list(&repository, &query)))
            }
            (["pulls", number], &Method::GET) => {
                let found = number
                    .parse()
                    .ok()
                    .and_then(|number| self.locked().get(&repository, number));
                found.map_or_else(
                    || error(StatusCode::NOT_FOUND, "Not Found", &[]),
                    |pull| json_of(StatusCode::OK, &pull),
                )
            }
            _ => error(StatusCode::NOT_FOUND, "Not Found", &[]),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Pulls> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, repository: &Repository, body: &Bytes) -> Response<Bytes> {
        let Ok(Value::Object(asked)) = serde_json::from_slice(body) else {
            return error(StatusCode::BAD_REQUEST, "Problems parsing JSON", &[]);
        };
        let text = |key: &str| asked.get(key).and_then(Value::as_str);
        let missing: Vec<String> = ["base", "head"]
            .iter()
            .filter(|key| text(key).is_none())
            .map(|key| format!("\"{key}\""))
            .collect();
        if !missing.is_empty() {
            let words = match missing.len() {
                1 => format!("Invalid request.\n\n{} wasn't supplied.", missing[0]),
                _ => format!("Invalid request.\n\n{} weren't supplied.", missing.join(", ")),
            };
            return error(StatusCode::UNPROCESSABLE_ENTITY, &words, &[]);
        }
        let (head, base) = (text("head").unwrap_or_default(), text("base").unwrap_or_default());
        let Some(title) = text("title").filter(|title| !title.trim().is_empty()) else {
            let item = json!({ "resource": "PullRequest", "field": "title", "code": "missing_field" });
            return invalid(item);
        };
        // A branch of the same repository may be written with its owner in front.
        let own = format!("{}:", repository.owner);
        let head = head.strip_prefix(&own).unwrap_or(head);
        let ids = (repository.branch(head).await, repository.branch(base).await);
        let field = |field: &str| invalid(json!({ "resource": "PullRequest", "field": field, "code": "invalid" }));
        let (head_id, base_id) = match ids {
            (_, None) => return field("base"),
            (None, _) => return field("head"),
            (Some(head), Some(base)) => (head, base),
        };
        let custom = |words: String| invalid(json!({ "resource": "PullRequest", "code": "custom", "message": words }));
        if !repository.is_ahead(&head_id, &base_id).await {
            return custom(format!("No commits between {base} and {head}"));
        }
        let mut pulls = self.locked();
        if pulls.is_open(repository, head, base) {
            return custom(format!(
                "A pull request already exists for {}:{head}.",
                repository.owner
            ));
        }
        let draft = asked.get("draft").and_then(Value::as_bool).unwrap_or(false);
        let pull = pulls.open(
            repository,
            (head, &head_id),
            (base, &base_id),
            title,
            text("body"),
            draft,
        );
        let mut response = json_of(StatusCode::CREATED, &pull);
        let location = pull["url"].as_str().and_then(|url| HeaderValue::from_str(url).ok());
        if let Some(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

fn invalid(item: Value) -> Response<Bytes> {
    error(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed", &[item])
}

fn error(status: StatusCode, message: &str, errors: &[Value]) -> Response<Bytes> {
    let mut document = json!({ "message": message, "documentation_url": DOCS, "status": status.as_u16().to_string() });
    if !errors.is_empty() {
        document["errors"] = json!(errors);
    }
    json_of(status, &document)
}

fn json_of(status: StatusCode, value: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(
        "x-github-media-type",
        HeaderValue::from_static("github.v3; format=json"),
    );
    headers.insert("x-github-api-version-selected", HeaderValue::from_static("2022-11-28"));
    headers.insert("x-ratelimit-limit", HeaderValue::from_static("5000"));
    headers.insert("x-ratelimit-remaining", HeaderValue::from_static("4999"));
    response
}

fn plain(status: StatusCode, words: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(words.as_bytes()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}
