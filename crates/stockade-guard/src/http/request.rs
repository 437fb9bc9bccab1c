//! Whom a request is for, and its form on the way out.

use http::{
    HeaderMap, HeaderName, Method, Request, Uri,
    header::{CONNECTION, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use stockade_policy::{Fault, Host, host_and_port};

/// The host and port a connection was opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// What a request says that its connection does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// It names another host or port.
    Authority(String),
    /// It cannot be judged.
    Fault(Fault),
}

/// Checks that every name in a request is the one the connection was opened for: the `Host`
/// header and, in absolute form (RFC 9112 3.2.2), the target's authority.
pub(super) fn check<B>(request: &Request<B>, pin: &Pin) -> Result<(), Stray> {
    if request.method() == Method::CONNECT {
        return Err(Stray::Fault(Fault::ConnectMethod));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Stray::Fault(Fault::NoHost));
    };
    agrees(&String::from_utf8_lossy(host.as_bytes()), pin)?;
    let uri = request.uri();
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(()),
        (Some("http"), Some(authority)) => agrees(authority.as_str(), pin),
        _ => Err(Stray::Fault(Fault::MalformedRequest)),
    }
}

fn agrees(authority: &str, pin: &Pin) -> Result<(), Stray> {
    match host_and_port(authority) {
        Ok((host, port)) if host == pin.host && port.unwrap_or(80) == pin.port => Ok(()),
        _ => Err(Stray::Authority(authority.to_owned())),
    }
}

/// Makes a request one that a client would send itself: target in origin form, nothing that
/// is meant for the next hop only (RFC 9110 7.6.1). An upgrade is not offered on.
pub(super) fn outward<B>(request: &mut Request<B>) {
    let target = match (request.method(), request.uri().path_and_query()) {
        (&Method::OPTIONS, Some(all)) if all.as_str() == "*" => PathAndQuery::from_static("*"),
        (_, Some(target)) => target.clone(),
        (_, None) => PathAndQuery::from_static("/"),
    };
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = http::Version::HTTP_11;
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(PROXY_AUTHORIZATION);
}

/// Removes what concerns one hop only.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A client could otherwise have the name it was judged by removed.
        .filter(|name| name != HOST)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [CONNECTION, UPGRADE, TE, TRAILER, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Pin {
        Pin {
            host: Host::parse("a.example.com").unwrap(),
            port: 80,
        }
    }

    fn request(target: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn names_that_agree_pass() {
        for (target, host) in [
            ("/", "a.example.com"),
            ("/x?y", "A.Example.com.:80"),
            ("http://a.example.com/x", "a.example.com"),
            ("http://A.example.com:80/x", "a.example.com:80"),
            ("*", "a.example.com"),
        ] {
            assert_eq!(check(&request(target, &[host]), &pin()), Ok(()), "{target} {host}");
        }
    }

    #[test]
    fn any_other_name_anywhere_is_seen() {
        for (target, host) in [
            ("/", "b.example.com"),
            ("/", "a.example.com:8080"),
            ("/", "a.example.com b.example.com"),
            ("/", "a.example.com,b.example.com"),
            ("/", "b.example.com@a.example.com"),
            ("/", ""),
            ("http://b.example.com/", "a.example.com"),
            ("http://a.example.com:81/", "a.example.com"),
            ("http://a.example.com@b.example.com/", "a.example.com"),
            ("http://b.example.com@a.example.com/", "a.example.com"),
            ("http://a.example.com/", "b.example.com"),
        ] {
            let seen = check(&request(target, &[host]), &pin());
            assert!(matches!(seen, Err(Stray::Authority(_))), "{target} {host}: {seen:?}");
        }
        let https = check(&request("https://a.example.com/", &["a.example.com"]), &pin());
        assert_eq!(https, Err(Stray::Fault(Fault::MalformedRequest)));
        assert_eq!(check(&request("/", &[]), &pin()), Err(Stray::Fault(Fault::NoHost)));
        let two = request("/", &["a.example.com", "a.example.com"]);
        assert_eq!(check(&two, &pin()), Err(Stray::Fault(Fault::NoHost)));
    }

    #[test]
    fn what_goes_out_is_in_origin_form_and_for_the_last_hop() {
        let mut request = request("http://a.example.com/x?y=1", &["a.example.com"]);
        let headers = request.headers_mut();
        headers.insert(CONNECTION, "keep-alive, X-Own, host".parse().unwrap());
        headers.insert("x-own", "1".parse().unwrap());
        headers.insert("x-kept", "1".parse().unwrap());
        headers.insert(UPGRADE, "websocket".parse().unwrap());
        outward(&mut request);
        assert_eq!(request.uri().to_string(), "/x?y=1");
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-kept"]);
    }
}
