//! A mirror of three registries with one tiny package each, over TLS: a simple index of Python
//! (PEP 503), a registry of npm's shape, a sparse registry of cargo; and something to call.
//!
//! | Path | What it is |
//! |---|---|
//! | `/simple/` | the index for `pip --index-url` |
//! | `/npm/` | the registry for `npm --registry` |
//! | `/index/` | the registry for cargo, as `sparse+https://…/index/` |
//! | `/api/…` | says `REACHED`, the method and the path |
//! | `/status/N` | answers with the status N |
//! | whatever was offered | that |

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    packages::{self, NAME, VERSION, WHEEL},
    serve::{Running, Seen, start_over, status},
    tls::TestAuthority,
};

type Offers = Arc<Mutex<HashMap<String, Bytes>>>;

/// A mirror that ends when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    running: Running,
    offers: Offers,
}

impl Mirror {
    /// Starts it on a free port of loopback, with a certificate of that authority for these names.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(authority: &TestAuthority, names: &[&str]) -> std::io::Result<Self> {
        let offers = Offers::default();
        let own = Arc::clone(&offers);
        let answer = move |request: Request<Bytes>| {
            let response = answer(&request, &own);
            async move { response }
        };
        let running = start_over(Some(authority.acceptor(names)), answer).await?;
        Ok(Self { running, offers })
    }

    /// Its port of loopback.
    pub fn port(&self) -> u16 {
        self.running.address.port()
    }

    /// Has these bytes at a path.
    pub fn offer(&self, path: &str, bytes: Vec<u8>) {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.insert(path.to_owned(), bytes.into());
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.running.log.all()
    }
}

fn answer(request: &Request<Bytes>, offers: &Offers) -> Response<Bytes> {
    let path = request.uri().path();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let origin = format!("https://{}", authority.or(host).unwrap_or_default());
    if let Some(code) = path.strip_prefix("/status/") {
        return status(code.parse().unwrap_or(StatusCode::BAD_REQUEST));
    }
    if path.starts_with("/api/") {
        let words = format!("REACHED by {} {path} over {:?}\n", request.method(), request.version());
        return of("text/plain", words);
    }
    let known = python(path)
        .or_else(|| npm(path, &origin))
        .or_else(|| cargo(path, &origin));
    let offered = || {
        let offers = offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.get(path).cloned()
    };
    let known = known.or_else(|| offered().map(|bytes| of("application/octet-stream", bytes)));
    known.unwrap_or_else(|| status(StatusCode::NOT_FOUND))
}

fn python(path: &str) -> Option<Response<Bytes>> {
    let file = format!("/simple/files/{WHEEL}");
    match path {
        "/simple/tiny-pack/" => {
            let hash = hex(&Sha256::digest(packages::wheel()));
            let page = format!("<!DOCTYPE html><a href=\"{file}#sha256={hash}\">{WHEEL}</a>");
            Some(of("text/html", page))
        }
        path if path == file => Some(of("application/zip", packages::wheel())),
        _ => None,
    }
}

fn npm(path: &str, origin: &str) -> Option<Response<Bytes>> {
    let tarball = format!("/npm/{NAME}/-/{NAME}-{VERSION}.tgz");
    match path {
        "/npm/tiny-pack" => {
            let hash = BASE64_STANDARD.encode(Sha512::digest(packages::npm()));
            let version = json!({
                "name": NAME, "version": VERSION, "main": "index.js",
                "dist": { "tarball": format!("{origin}{tarball}"), "integrity": format!("sha512-{hash}") },
            });
            let document =
                json!({ "name": NAME, "dist-tags": { "latest": VERSION }, "versions": { VERSION: version } });
            Some(of("application/json", document.to_string()))
        }
        path if path == tarball => Some(of("application/octet-stream", packages::npm())),
        _ => None,
    }
}

fn cargo(path: &str, origin: &str) -> Option<Response<Bytes>> {
    match path {
        "/index/config.json" => {
            let config = json!({ "dl": format!("{origin}/index/crates") });
            Some(of("application/json", config.to_string()))
        }
        "/index/ti/ny/tiny-pack" => {
            let hash = hex(&Sha256::digest(packages::cargo()));
            let line = json!({
                "name": NAME, "vers": VERSION, "deps": [], "cksum": hash, "features": {}, "yanked": false,
            });
            Some(of("text/plain", format!("{line}\n")))
        }
        "/index/crates/tiny-pack/1.0.0/download" => Some(of("application/gzip", packages::cargo())),
        _ => None,
    }
}

fn of(kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
