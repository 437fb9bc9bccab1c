//! The outermost checks, the same for every route: does the request mean us, does it come
//! from a page of another site, and does the answer say how it may be used.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Authority};
use stockade_api::{Problem, ProblemCode};

use crate::error::{Answer, internal, refuse};

/// Which host names a request may ask for. Other names reach a loopback listener only by
/// DNS rebinding: a web page whose name was pointed at this machine.
#[derive(Debug, Clone)]
pub(crate) enum HostRule {
    /// Loopback names, and these.
    Named(Arc<[String]>),
    /// Any: the listener is not on the loopback and nobody configured its names.
    Any,
}

impl HostRule {
    pub(crate) fn loopback(others: &[String]) -> Self {
        Self::Named(others.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// The rule for a listener at this address.
    pub(crate) fn of(loopback: bool, allowed: &[String]) -> Self {
        if loopback || !allowed.is_empty() {
            Self::loopback(allowed)
        } else {
            Self::Any
        }
    }

    fn allows(&self, host: &str) -> bool {
        let Self::Named(others) = self else { return true };
        let host = host.to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        loopback || others.contains(&host)
    }
}

/// Puts the checks around a router.
pub(crate) fn wrap(router: Router, hosts: HostRule) -> Router {
    router
        .layer(from_fn_with_state(hosts, addressed))
        .layer(from_fn(with_security_headers))
        .layer(from_fn(caught))
}

/// A panic in a handler is a problem without details, never a closed connection.
async fn caught(request: Request, next: Next) -> Result<Response, Infallible> {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    Ok(answered.unwrap_or_else(|_| internal("a handler panicked").into_response()))
}

async fn addressed(State(hosts): State<HostRule>, request: Request, next: Next) -> Response {
    match check(&hosts, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(hosts: &HostRule, uri: &Uri, headers: &HeaderMap) -> Answer<()> {
    let authority = authority(uri, headers)?;
    if !hosts.allows(authority.host()) {
        let host: String = authority.host().chars().take(200).collect();
        return Err(Problem::new(
            ProblemCode::Misdirected,
            format!("this gateway does not answer for '{host}'"),
        )
        .with_hint("use 127.0.0.1 or localhost, or add the name to the gateway's allowed hosts")
        .into());
    }
    own_origin(&authority, headers)
}

/// The host a request asks for (RFC 9112, section 3.2): exactly one.
fn authority(uri: &Uri, headers: &HeaderMap) -> Answer<Authority> {
    let wrong = || {
        refuse(
            ProblemCode::InvalidHeader,
            "the request needs exactly one valid Host header",
        )
    };
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(wrong());
    };
    let host: Authority = value.to_str().ok().and_then(|v| v.parse().ok()).ok_or_else(wrong)?;
    match uri.authority() {
        Some(authority) if *authority != host => Err(wrong()),
        _ => Ok(host),
    }
}

/// Browsers say where a request comes from; only our own pages may ask.
fn own_origin(authority: &Authority, headers: &HeaderMap) -> Answer<()> {
    let foreign = || {
        Problem::new(ProblemCode::ForeignOrigin, "a page of another origin sent this request")
            .with_hint("this API is not for pages of other sites; call it from a program")
            .into()
    };
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|o| o.strip_prefix("http://").or_else(|| o.strip_prefix("https://")))
            .is_some_and(|o| o.eq_ignore_ascii_case(authority.as_str()));
        if !own {
            return Err(foreign());
        }
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match site {
        Some(b"cross-site" | b"same-site") => Err(foreign()),
        _ => Ok(()),
    }
}

async fn with_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_and_configured_ones_only() {
        let rule = HostRule::of(true, &["Box.Example".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "box.example",
        ] {
            assert!(rule.allows(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "",
        ] {
            assert!(!rule.allows(bad), "{bad}");
        }
        assert!(HostRule::of(false, &[]).allows("anything"));
        assert!(!HostRule::of(false, &["a".to_owned()]).allows("anything"));
    }

    #[test]
    fn an_origin_is_ours_or_refused() {
        let authority: Authority = "127.0.0.1:7070".parse().unwrap();
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            own_origin(&authority, &headers).is_ok()
        };
        assert!(own_origin(&authority, &HeaderMap::new()).is_ok());
        assert!(with("origin", "http://127.0.0.1:7070"));
        assert!(with("sec-fetch-site", "same-origin"));
        assert!(with("sec-fetch-site", "none"));
        for bad in ["null", "http://127.0.0.1:7701", "http://evil.example", "127.0.0.1:7070"] {
            assert!(!with("origin", bad), "{bad}");
        }
        assert!(!with("sec-fetch-site", "cross-site"));
    }
}
