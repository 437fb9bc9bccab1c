//! Whom a request is for, and its form on the way out.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{PathAndQuery, Scheme},
};
use stockade_policy::{Fault, Host, host_and_port};

use super::upgrade;
use crate::tls::Alpn;

/// The host and port a connection was opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// Whether requests come through TLS.
    pub(crate) secure: bool,
}

impl Pin {
    /// For HTTP in the clear.
    pub(super) fn plain(host: Host, port: u16) -> Self {
        Self {
            host,
            port,
            secure: false,
        }
    }

    /// For HTTP inside TLS.
    pub(crate) fn secure(host: Host, port: u16) -> Self {
        Self {
            host,
            port,
            secure: true,
        }
    }

    /// Its origin (RFC 6454 6.2), such as `https://git.example`.
    pub(super) fn origin(&self) -> String {
        let authority = self.authority(self.port != self.usual_port());
        format!("{}://{authority}", self.scheme())
    }

    fn scheme(&self) -> &'static Scheme {
        if self.secure { &Scheme::HTTPS } else { &Scheme::HTTP }
    }

    /// The port meant where none is named.
    fn usual_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }

    /// The authority in canonical form.
    fn authority(&self, with_port: bool) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        };
        match with_port {
            true => format!("{host}:{}", self.port),
            false => host,
        }
    }
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
/// header and the target's authority, which HTTP/1 has in absolute form (RFC 9112 3.2.2) and
/// HTTP/2 always (RFC 9113 8.3.1).
pub(super) fn check<B>(request: &Request<B>, pin: &Pin) -> Result<(), Stray> {
    if request.method() == Method::CONNECT {
        return Err(Stray::Fault(Fault::ConnectMethod));
    }
    let http2 = request.version() == Version::HTTP_2;
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => agrees(&String::from_utf8_lossy(host.as_bytes()), pin)?,
        (None, None) if http2 => {}
        _ => return Err(Stray::Fault(Fault::NoHost)),
    }
    let uri = request.uri();
    match (uri.scheme(), uri.authority()) {
        (None, None) if !http2 => Ok(()),
        (Some(scheme), Some(authority)) if scheme == pin.scheme() => agrees(authority.as_str(), pin),
        _ => Err(Stray::Fault(Fault::MalformedRequest)),
    }
}

fn agrees(authority: &str, pin: &Pin) -> Result<(), Stray> {
    match host_and_port(authority) {
        Ok((host, port)) if host == pin.host && port.unwrap_or(pin.usual_port()) == pin.port => Ok(()),
        // The policy takes an authority without a port for one of plain HTTP.
        Ok((_, None)) if pin.secure => Err(Stray::Authority(format!("{authority}:{}", pin.usual_port()))),
        _ => Err(Stray::Authority(authority.to_owned())),
    }
}

/// Makes a request one that a client would send itself: its host in canonical form, the target
/// in the form of the version, nothing that is meant for the next hop only (RFC 9110 7.6.1). An
/// upgrade is offered on only where `upgrade` says so.
///
/// Expects a request that [`check`] let pass, or one whose names the policy let out.
pub(super) fn outward<B>(request: &mut Request<B>, pin: &Pin, alpn: Alpn, upgrade: bool) {
    let target = match (request.method(), request.uri().path_and_query()) {
        (&Method::OPTIONS, Some(all)) if all.as_str() == "*" => PathAndQuery::from_static("*"),
        (_, Some(target)) => target.clone(),
        (_, None) => PathAndQuery::from_static("/"),
    };
    let trailers = wants_trailers(request.headers());
    strip_hop_by_hop(request.headers_mut());
    let headers = request.headers_mut();
    headers.remove(PROXY_AUTHORIZATION);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if alpn == Alpn::Http2 {
        headers.remove(HOST);
        let authority = pin.authority(pin.port != pin.usual_port());
        let whole = Uri::builder()
            .scheme(pin.scheme().clone())
            .authority(authority)
            .path_and_query(target.clone());
        // The parts were a request's before, so they are one again.
        *request.uri_mut() = whole.build().unwrap_or_else(|_| Uri::from(target));
        *request.version_mut() = Version::HTTP_2;
        return;
    }
    if trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if upgrade {
        upgrade::mark(headers);
    }
    if let Some(host) = headers.get(HOST).and_then(|host| canonical(host, pin)) {
        headers.insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = Version::HTTP_11;
}

/// A `Host` of this pin in the one spelling that goes out; the port stays if it was named.
fn canonical(host: &HeaderValue, pin: &Pin) -> Option<HeaderValue> {
    let (named, port) = host_and_port(host.to_str().ok()?).ok()?;
    if named != pin.host {
        return None;
    }
    HeaderValue::from_str(&pin.authority(port.is_some())).ok()
}

/// Whether a client takes trailers (RFC 9110 10.1.4); gRPC insists on being told.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
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
    for name in [CONNECTION, UPGRADE, TE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Pin {
        Pin::plain(Host::parse("a.example.com").unwrap(), 80)
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
        outward(&mut request, &pin(), Alpn::Http1, false);
        assert_eq!(request.uri().to_string(), "/x?y=1");
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-kept"]);
    }

    #[test]
    fn a_host_goes_out_in_one_spelling() {
        for (host, expected) in [
            ("A.Example.COM.", "a.example.com"),
            ("a.example.com:80", "a.example.com:80"),
        ] {
            let mut request = request("/", &[host]);
            outward(&mut request, &pin(), Alpn::Http1, false);
            assert_eq!(request.headers()[HOST], expected);
        }
    }

    #[test]
    fn trailers_are_still_taken_after_a_hop() {
        let mut request = request("/", &["a.example.com"]);
        request.headers_mut().insert(TE, "gzip, trailers".parse().unwrap());
        outward(&mut request, &pin(), Alpn::Http1, false);
        assert_eq!(request.headers()[TE], "trailers");
        assert_eq!(request.headers()[CONNECTION], "te");
    }

    #[test]
    fn http2_has_its_authority_in_the_target() {
        let pin = Pin::secure(Host::parse("a.example.com").unwrap(), 443);
        let http2 = |target: &str, hosts: &[&str]| {
            let mut request = request(target, hosts);
            *request.version_mut() = Version::HTTP_2;
            request
        };
        let good = [
            http2("https://a.example.com/x", &[]),
            http2("https://A.example.com.:443/x", &["a.example.com"]),
        ];
        for mut request in good {
            assert_eq!(check(&request, &pin), Ok(()));
            outward(&mut request, &pin, Alpn::Http2, false);
            assert_eq!(request.uri().to_string(), "https://a.example.com/x");
            assert!(request.headers().is_empty());
        }
        let stray = |target: &str, hosts: &[&str]| check(&http2(target, hosts), &pin).unwrap_err();
        let other = Stray::Authority("b.example.com:443".to_owned());
        assert_eq!(stray("https://b.example.com/", &["a.example.com"]), other);
        assert_eq!(stray("https://a.example.com/", &["b.example.com"]), other);
        let two = stray("https://a.example.com/", &["a.example.com", "a.example.com"]);
        assert_eq!(two, Stray::Fault(Fault::NoHost));
        for malformed in [("/", &["a.example.com"][..]), ("http://a.example.com/", &[])] {
            assert_eq!(stray(malformed.0, malformed.1), Stray::Fault(Fault::MalformedRequest));
        }
    }
}
