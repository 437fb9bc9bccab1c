//! What a request wants, judged by the end of its path: any prefix is tolerated.

use http::{HeaderMap, Method, header};
use stockade_domain::Wire;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A call to the model.
    Call(Wire),
    /// How many tokens a request has.
    CountTokens,
    /// Which models there are.
    Models,
    /// The Responses API over a WebSocket.
    WebSocket,
    /// Whether anybody is there.
    Hello,
    /// A known path with another method than this one.
    Method(Wire, &'static str),
    /// Nothing the gateway knows.
    Unknown(Wire),
}

impl Route {
    pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        segments.reverse();
        let read = matches!(*method, Method::GET | Method::HEAD);
        let post = *method == Method::POST;
        let call = |wire| {
            if post {
                Self::Call(wire)
            } else {
                Self::Method(wire, "POST")
            }
        };
        match segments.as_slice() {
            ["messages", ..] => call(Wire::AnthropicMessages),
            ["count_tokens", "messages", ..] if post => Self::CountTokens,
            ["count_tokens", "messages", ..] => Self::Method(Wire::AnthropicMessages, "POST"),
            ["completions", "chat", ..] => call(Wire::OpenaiChat),
            ["responses", ..] if *method == Method::GET && wants_websocket(headers) => Self::WebSocket,
            ["responses", ..] => call(Wire::OpenaiResponses),
            ["models", ..] | [_, "models", ..] if read => Self::Models,
            ["models", ..] => Self::Method(guess(headers), "GET"),
            [] | ["hello", "api", ..] if read => Self::Hello,
            _ => Self::Unknown(guess(headers)),
        }
    }

    /// The wire in whose format an error is told.
    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Call(wire) | Self::Method(wire, _) | Self::Unknown(wire) => wire,
            Self::CountTokens => Wire::AnthropicMessages,
            Self::Models | Self::WebSocket | Self::Hello => Wire::OpenaiResponses,
        }
    }
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Anthropic's clients always name a version.
fn guess(headers: &HeaderMap) -> Wire {
    if headers.contains_key("anthropic-version") {
        Wire::AnthropicMessages
    } else {
        Wire::OpenaiChat
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn route(method: &Method, path: &str) -> Route {
        Route::of(method, path, &HeaderMap::new())
    }

    #[test]
    fn any_prefix_and_a_missing_version_are_fine() {
        for prefix in ["", "/v1", "/sbx/abc/v1", "/posthog_code/v1"] {
            let post = |path: &str| route(&Method::POST, &format!("{prefix}{path}"));
            assert_eq!(post("/messages"), Route::Call(Wire::AnthropicMessages));
            assert_eq!(post("/messages/"), Route::Call(Wire::AnthropicMessages));
            assert_eq!(post("/messages/count_tokens"), Route::CountTokens);
            assert_eq!(post("/chat/completions"), Route::Call(Wire::OpenaiChat));
            assert_eq!(post("/responses"), Route::Call(Wire::OpenaiResponses));
            assert_eq!(route(&Method::GET, &format!("{prefix}/models")), Route::Models);
            assert_eq!(route(&Method::GET, &format!("{prefix}/models/m")), Route::Models);
        }
    }

    #[test]
    fn only_a_websocket_is_told_to_go_on_over_http() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            route(&Method::GET, "/v1/responses"),
            Route::Method(Wire::OpenaiResponses, "POST")
        );
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        assert_eq!(Route::of(&Method::GET, "/v1/responses", &headers), Route::WebSocket);
    }

    #[test]
    fn a_knock_is_answered_and_the_rest_is_unknown() {
        assert_eq!(route(&Method::HEAD, "/"), Route::Hello);
        assert_eq!(route(&Method::HEAD, "/api/hello"), Route::Hello);
        assert_eq!(route(&Method::POST, "/v1/embeddings"), Route::Unknown(Wire::OpenaiChat));
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        let unknown = Route::of(&Method::POST, "/v1/files", &headers);
        assert_eq!(unknown, Route::Unknown(Wire::AnthropicMessages));
    }
}
