//! What requests carry: JSON bodies, query strings, path ids and idempotency keys.

use std::{collections::BTreeMap, str::FromStr};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use stockade_api::{Problem, ProblemCode, v1::OCTETS};

use crate::{
    App, HttpLimits,
    error::{Answer, Refusal, not_found, refuse},
};

/// A JSON body (RFC 8259) of exactly the shape of `T`.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        if !is_json(request.headers()) {
            drain(request, &app.limits).await;
            return Err(not_json());
        }
        parse(&read(request, &app.limits, app.limits.body_bytes).await?).map(Self)
    }
}

/// A JSON body that may be absent, which is the empty object.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        let json = is_json(request.headers());
        let bytes = read(request, &app.limits, app.limits.body_bytes).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !json {
            return Err(not_json());
        }
        parse(&bytes).map(Self)
    }
}

/// A body of bytes (RFC 2046, section 4.5.1), at most so many, taken as they are.
pub(crate) struct Octets<const MOST: usize>(pub(crate) Bytes);

impl<const MOST: usize> FromRequest<App> for Octets<MOST> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        let announced = request.headers().get(header::CONTENT_TYPE);
        if announced.is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(OCTETS.as_bytes())) {
            drain(request, &app.limits).await;
            return Err(refuse(
                ProblemCode::UnsupportedMediaType,
                format!("the Content-Type is not {OCTETS}"),
            )
            .hint("send the value as the body, as it is, with 'Content-Type: application/octet-stream'"));
        }
        read(request, &app.limits, MOST).await.map(Self)
    }
}

fn not_json() -> Refusal {
    refuse(
        ProblemCode::UnsupportedMediaType,
        "the Content-Type is not application/json",
    )
    .hint("send 'Content-Type: application/json'")
}

impl Refusal {
    fn hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let json = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    // JSON is UTF-8 (RFC 8259, section 8.1); another charset is another format.
    json && parts.all(|p| {
        p.to_ascii_lowercase()
            .strip_prefix("charset=")
            .is_none_or(|c| c.trim_matches('"') == "utf-8")
    })
}

async fn read(request: Request, limits: &HttpLimits, most: usize) -> Answer<Bytes> {
    let too_large = || {
        Refusal::from(
            Problem::new(
                ProblemCode::BodyTooLarge,
                format!("the body is larger than {most} bytes"),
            )
            .with("limit", most),
        )
    };
    if announced(request.headers()).is_some_and(|n| n > most as u64) {
        drain(request, limits).await;
        return Err(too_large());
    }
    let mut body = request.into_body();
    let collected = tokio::time::timeout(limits.body_timeout, Limited::new(&mut body, most).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(&mut body, limits).await;
            Err(too_large())
        }
        Ok(Err(_)) => Err(refuse(ProblemCode::RequestTimeout, "the body broke off before its end")),
        Err(_) => Err(refuse(
            ProblemCode::RequestTimeout,
            format!("the body did not arrive within {} s", limits.body_timeout.as_secs()),
        )),
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Takes in, within bounds, a body nobody will read: a connection closed on unread bytes is
/// reset, and the client would never see why it was refused.
pub(crate) async fn drain(request: Request, limits: &HttpLimits) {
    if request.headers().contains_key(header::EXPECT) {
        return; // The client waits for our answer before it sends.
    }
    discard(&mut request.into_body(), limits).await;
}

async fn discard(body: &mut Body, limits: &HttpLimits) {
    let mut left = limits.body_bytes.saturating_mul(4);
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), all).await;
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        refuse(
            ProblemCode::InvalidUtf8,
            format!("the body is not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        wrong_json(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| wrong_json(".", &error))?;
    Ok(value)
}

fn wrong_json(path: &str, error: &serde_json::Error) -> Refusal {
    let place = |problem: Problem| problem.with("line", error.line()).with("column", error.column());
    if !error.is_data() {
        return place(Problem::new(ProblemCode::MalformedJson, error.to_string())).into();
    }
    let detail = match path {
        "." => error.to_string(),
        path => format!("{path}: {error}"),
    };
    place(Problem::new(ProblemCode::InvalidBody, detail).with("field", path)).into()
}

/// The parameters of a query string, each at most once, none unknown.
#[derive(Debug)]
pub(crate) struct Query(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| refuse(ProblemCode::InvalidQuery, error.body_text()))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs.0 {
            if query.insert(name.clone(), value).is_some() {
                return Err(wrong_query(&name, "it is given twice"));
            }
        }
        Ok(Self(query))
    }
}

impl Query {
    /// Refuses parameters a route does not know.
    pub(crate) fn only(self, known: &[&str]) -> Answer<Self> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => {
                let why = format!("it is not known here; known are: {}", known.join(", "));
                Err(wrong_query(unknown, &why))
            }
            None => Ok(self),
        }
    }

    /// A parameter, where given.
    pub(crate) fn get<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Answer<Option<T>> {
        self.with(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// A parameter, where given, read by a function.
    pub(crate) fn with<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Answer<Option<T>> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        read(text).map(Some).map_err(|why| wrong_query(name, &why))
    }

    /// The `limit` parameter.
    pub(crate) fn limit(&self, default: u32, most: u32) -> Answer<u32> {
        let limit = self.with("limit", |text| match text.parse::<u32>() {
            Ok(n) if (1..=most).contains(&n) => Ok(n),
            _ => Err(format!("it must be a number from 1 to {most}")),
        })?;
        Ok(limit.unwrap_or(default))
    }
}

fn wrong_query(name: &str, why: &str) -> Refusal {
    let name: String = name.chars().take(80).collect();
    Problem::new(ProblemCode::InvalidQuery, format!("parameter '{name}': {why}"))
        .with("field", name)
        .into()
}

/// An id in the path. One that cannot be an id names nothing.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr<Err: std::fmt::Display>, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let path: Result<Path<BTreeMap<String, String>>, _> = Path::from_request_parts(parts, state).await;
        let text = match path {
            Ok(Path(mut parts)) => parts.remove("id").unwrap_or_default(),
            Err(_) => return Err(not_found("thing of that id", "")),
        };
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| refuse(ProblemCode::NotFound, error.to_string()))
    }
}

/// The `{name}` in the path, decoded and not yet checked.
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let path: Result<Path<BTreeMap<String, String>>, _> = Path::from_request_parts(parts, state).await;
        // A path that is not UTF-8 names nothing.
        Ok(Self(
            path.ok()
                .and_then(|Path(mut parts)| parts.remove("name"))
                .unwrap_or_default(),
        ))
    }
}

/// The `Idempotency-Key` of a request that creates.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => value.to_str().ok(),
            (Some(_), Some(_)) => None,
        };
        key.filter(|key| (1..=255).contains(&key.len()))
            .map(|key| Self(Some(key.to_owned())))
            .ok_or_else(|| {
                refuse(
                    ProblemCode::InvalidHeader,
                    "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters",
                )
            })
    }
}

/// Refuses an `Idempotency-Key` where it could not be honoured: a promise not kept is worse
/// than none.
pub(crate) struct NoIdempotencyKey;

impl<S: Sync> FromRequestParts<S> for NoIdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        if parts.headers.contains_key(IDEMPOTENCY_KEY) {
            return Err(refuse(
                ProblemCode::InvalidHeader,
                "this route cannot honour an Idempotency-Key: a repeated request acts again",
            )
            .hint("leave the header out"));
        }
        Ok(Self)
    }
}
