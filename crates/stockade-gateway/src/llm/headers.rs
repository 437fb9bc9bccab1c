//! Which headers of a client go on to the provider.

use http::{HeaderMap, HeaderName, header};

/// Headers that belong to one connection (RFC 9110, section 7.6.1) or to this message's framing.
const CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "expect",
];

/// Credentials, and what says or hints who asks. Inside a sandbox all of it is made up.
const IDENTITY: &[&str] = &[
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "openai-organization",
    "openai-project",
    "forwarded",
    "via",
    "x-real-ip",
];

const IDENTITY_PREFIXES: &[&str] = &["x-forwarded-", "x-stockade-", "cf-", "sec-websocket-"];

/// The client's headers without those of the connection and without identity.
pub(super) fn of_client(headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let passes = |name: &HeaderName| {
        let name = name.as_str();
        !CONNECTION.contains(&name)
            && !IDENTITY.contains(&name)
            && !IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !named.iter().any(|other| other == name)
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        kept.append(name, value.clone());
    }
    kept
}

/// Headers that `connection` itself declares to be of one connection.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn unknown_headers_pass_and_credentials_do_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("anthropic-beta", "a,b"),
            ("x-claude-code-session-id", "s"),
            ("x-of-tomorrow", "kept"),
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("x-goog-api-key", "secret"),
            ("cookie", "secret"),
            ("x-stockade-run", "somebody else's"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("host", "llm.stockade.internal"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("anthropic-beta", HeaderValue::from_static("c"));
        let kept = of_client(&headers);
        let names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["anthropic-beta", "x-claude-code-session-id", "x-of-tomorrow"]);
        assert_eq!(kept.get_all("anthropic-beta").iter().count(), 2);
    }
}
