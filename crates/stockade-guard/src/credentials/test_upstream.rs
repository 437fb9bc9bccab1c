//! A server for tests that speaks like GitHub's API and like a token endpoint, as strictly as they do.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stockade_ports::{Clock as _, ManualClock};
use tokio::net::{TcpListener, TcpStream};

use super::{Fetch, FetchError};

const APP_PUBLIC: &[u8] = include_bytes!("testdata/app.pub.der");

/// A server that speaks like GitHub's API and like a token endpoint, as strictly as they do.
pub(super) struct Upstream {
    clock: Arc<ManualClock>,
    /// What was asked, and how many tokens were given.
    asked: Mutex<Vec<String>>,
    /// What to answer instead.
    instead: Mutex<Option<(u16, String)>>,
}

impl Upstream {
    pub(super) async fn start(clock: &Arc<ManualClock>) -> (Arc<Self>, Arc<dyn Fetch>) {
        let upstream = Arc::new(Self {
            clock: Arc::clone(clock),
            asked: Mutex::default(),
            instead: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&upstream);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let upstream = Arc::clone(&serving);
                let service = hyper::service::service_fn(move |request| {
                    let upstream = Arc::clone(&upstream);
                    async move { Ok::<_, hyper::Error>(upstream.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        (upstream, Arc::new(Local(address)))
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn answer_instead(&self, status: u16, body: &str) {
        *self.instead.lock().unwrap() = Some((status, body.to_owned()));
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {}", head.method, head.uri.path()));
        let instead = self.instead.lock().unwrap().clone();
        let (status, text) = instead.unwrap_or_else(|| {
            let answer = match head.uri.path() {
                "/app/installations/77/access_tokens" => self.github(&head, &body),
                "/token" => self.oauth(&head, &body),
                _ => Err((404, json!({ "message": "Not Found" }))),
            };
            let (status, body) = answer.unwrap_or_else(|refused| refused);
            (status, body.to_string())
        });
        Response::builder().status(status).body(Full::from(text)).unwrap()
    }

    /// Checks everything that GitHub's documentation asks of the request.
    fn github(&self, head: &Parts, body: &[u8]) -> Result<(u16, Value), (u16, Value)> {
        let header = |name: &str| head.headers.get(name).map_or("", |v| v.to_str().unwrap());
        if header("user-agent").is_empty() {
            return Err((403, json!({ "message": "Request forbidden by administrative rules" })));
        }
        assert_eq!(header("accept"), "application/vnd.github+json");
        assert_eq!(header("x-github-api-version"), "2022-11-28");
        assert_eq!((&head.method, header("host")), (&http::Method::POST, "api.github.com"));
        let refused = (401, json!({ "message": "A JSON web token could not be decoded" }));
        let claims = verified(header("authorization")).ok_or(refused.clone())?;
        let now = self.clock.now().as_second();
        let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        // 'iat' may not lie in the future, 'exp' at most ten minutes ahead.
        if claims["iss"] != "12345" || issued > now || ends <= now || ends > now + 600 {
            return Err(refused);
        }
        let wanted: Value = serde_json::from_slice(body).unwrap();
        let names: Vec<&str> = wanted["repositories"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        if names.iter().any(|name| *name != "app") {
            return Err((
                422,
                json!({ "message": "There is at least one repository that does not exist" }),
            ));
        }
        let count = self.asked().len();
        let ends = stockade_domain::Timestamp::from_second(now + 3600).unwrap();
        Ok((
            201,
            json!({
                "token": format!("ghs_installation-token-{count}"),
                "expires_at": ends.to_string(),
                "permissions": { "contents": "write" },
                "repository_selection": "selected",
                "repositories": [{ "id": 1, "name": "app", "full_name": "Acme/app" }],
            }),
        ))
    }

    /// Checks what RFC 6749 asks of a client credentials request.
    fn oauth(&self, head: &Parts, body: &[u8]) -> Result<(u16, Value), (u16, Value)> {
        let header = |name: &str| head.headers.get(name).map_or("", |v| v.to_str().unwrap());
        assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
        let body = std::str::from_utf8(body).unwrap();
        let pair = header("authorization")
            .strip_prefix("Basic ")
            .map(|text| STANDARD.decode(text).unwrap());
        if pair.as_deref() != Some(b"robot%2F1:client+secret%3A+%C3%A4") {
            return Err((
                401,
                json!({ "error": "invalid_client", "error_description": "canary-echo" }),
            ));
        }
        assert_eq!(body, "grant_type=client_credentials&scope=read+a%3Ab");
        let count = self.asked().len();
        Ok((
            200,
            json!({ "access_token": format!("access-token-{count}"), "token_type": "bearer", "expires_in": 600 }),
        ))
    }
}

/// The claims of a token that the app has signed.
fn verified(authorization: &str) -> Option<Value> {
    let token = authorization.strip_prefix("Bearer ")?;
    let (signed, signature) = token.rsplit_once('.')?;
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, APP_PUBLIC);
    key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?)
        .ok()?;
    let (header, claims) = signed.split_once('.')?;
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(read(header), json!({ "alg": "RS256", "typ": "JWT" }));
    Some(read(claims))
}

/// The Guard's own requests, to the server of the test whatever host they name.
struct Local(SocketAddr);

#[async_trait]
impl Fetch for Local {
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let failed = |error: &dyn fmt::Display| FetchError(error.to_string());
        assert_eq!(request.uri().scheme_str(), Some("https"));
        let stream = TcpStream::connect(self.0).await.map_err(|e| failed(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        head.headers.insert("host", head.uri.host().unwrap().parse().unwrap());
        head.uri = head.uri.path().parse().unwrap();
        let answer = sender
            .send_request(Request::from_parts(head, Full::new(body)))
            .await
            .map_err(|e| failed(&e))?;
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
    }
}
