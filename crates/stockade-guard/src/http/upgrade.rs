//! WebSocket, the one protocol an HTTP/1.1 connection may turn into (RFC 6455).
//!
//! Nothing else is offered on: `h2c` would hide requests from whoever judges them. What a
//! WebSocket carries is not read; its settlement says so.

use http::{
    HeaderMap, HeaderValue, Method, Request, Version,
    header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE},
};

/// The other side of an upgraded connection.
pub(super) type Upgraded = hyper::upgrade::Upgraded;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Whether a request asks for a WebSocket, and for that alone.
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let once = |name| headers.get_all(name).iter().count() == 1;
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names_websocket(headers)
        && once(SEC_WEBSOCKET_KEY)
        && once(SEC_WEBSOCKET_VERSION)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Whether a response with status 101 is one to such a request.
pub(super) fn is_answered(headers: &HeaderMap) -> bool {
    names_websocket(headers)
}

/// Puts back the headers that make a message one about a WebSocket.
pub(super) fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

fn names_websocket(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(UPGRADE).iter();
    let only = named
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    let listed = headers.get_all(CONNECTION).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    only && named.next().is_none() && listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Request<()>)) -> bool {
        let mut request = Request::builder()
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(UPGRADE, "WebSocket")
            .header(SEC_WEBSOCKET_KEY, "x")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .body(())
            .unwrap();
        change(&mut request);
        is_asked_for(&request)
    }

    #[test]
    fn a_websocket_and_nothing_else_is_asked_for() {
        assert!(request(|_| {}));
        assert!(!request(|r| *r.method_mut() = Method::POST));
        assert!(!request(|r| *r.version_mut() = Version::HTTP_10));
        assert!(!request(|r| *r.version_mut() = Version::HTTP_2));
        assert!(!request(|r| {
            r.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
        }));
        assert!(!request(|r| {
            r.headers_mut().append(UPGRADE, HeaderValue::from_static("h2c"));
        }));
        assert!(!request(|r| {
            r.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        }));
        assert!(!request(|r| {
            r.headers_mut().append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("y"));
        }));
        for name in [CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
            assert!(!request(|r| {
                r.headers_mut().remove(name);
            }));
        }
    }
}
