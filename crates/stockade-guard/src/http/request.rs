//! Whom a request is for, and its form on the way out.

use std::{borrow::Cow, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{self, PathAndQuery},
};
use stockade_policy::{
    Fault, Host, RequestTarget, Scheme, TargetError, host_and_port,
    target::{Http1Target, Http2Target},
};

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
        let port = (self.port != self.usual_port()).then_some(self.port);
        format!("{}://{}", self.scheme().as_str(), authority(&self.host, port))
    }

    fn scheme(&self) -> Scheme {
        if self.secure { Scheme::Https } else { Scheme::Http }
    }

    /// The port meant where none is named.
    fn usual_port(&self) -> u16 {
        self.scheme().default_port()
    }
}

/// An authority in canonical form.
fn authority(host: &Host, port: Option<u16>) -> String {
    let host = match host {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.to_string(),
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// What a request says that its connection does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// It names another host or port.
    Elsewhere {
        /// The first name that is not the connection's, as it stands there.
        named: String,
        /// Where it goes, if all of it names one other place.
        target: Option<Box<RequestTarget>>,
    },
    /// It cannot be judged.
    Fault(Fault),
}

/// Reads whom a request is for, and checks that this is whom the connection was opened for.
pub(super) fn check<B>(request: &Request<B>, pin: &Pin) -> Result<RequestTarget, Stray> {
    if request.method() == Method::CONNECT {
        return Err(Stray::Fault(Fault::ConnectMethod));
    }
    let elsewhere = |target| Stray::Elsewhere {
        named: stranger(request, pin),
        target,
    };
    match target(request, pin.scheme()) {
        Ok(target) if target.host == pin.host && target.port == pin.port => Ok(target),
        Ok(target) => Err(elsewhere(Some(Box::new(target)))),
        Err(error) if error.is_about_names() => Err(elsewhere(None)),
        // The host is the right one; the request is only not one of this connection.
        Err(TargetError::OtherScheme) => Err(Stray::Fault(Fault::MalformedRequest)),
        Err(error) => Err(Stray::Fault(error.fault())),
    }
}

/// Reads whom a request is for, by the policy's own reader: the target's authority, which HTTP/1
/// has in absolute form (RFC 9112 3.2.2) and HTTP/2 always (RFC 9113 8.3.1), and `Host`.
pub(super) fn target<B>(request: &Request<B>, scheme: Scheme) -> Result<RequestTarget, TargetError> {
    let hosts: Vec<Cow<'_, str>> = hosts(request).collect();
    let hosts: Vec<&str> = hosts.iter().map(AsRef::as_ref).collect();
    let (method, uri) = (request.method().as_str(), request.uri());
    let path = uri.path_and_query().map(PathAndQuery::as_str);
    if request.version() == Version::HTTP_2 {
        return RequestTarget::http2(&Http2Target {
            connection: scheme,
            method,
            scheme: uri.scheme_str(),
            authority: uri.authority().map(uri::Authority::as_str),
            path,
            hosts: &hosts,
        });
    }
    let whole = uri.authority().map(|_| uri.to_string());
    RequestTarget::http1(&Http1Target {
        scheme,
        method,
        target: whole.as_deref().or(path).unwrap_or_default(),
        hosts: &hosts,
    })
}

fn hosts<B>(request: &Request<B>) -> impl Iterator<Item = Cow<'_, str>> {
    let values = request.headers().get_all(HOST).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// The first name in a request that is not the connection's, for the record.
fn stranger<B>(request: &Request<B>, pin: &Pin) -> String {
    let own = request.uri().authority().map(|authority| Cow::from(authority.as_str()));
    let mut named = own.into_iter().chain(hosts(request));
    let strange = |name: &Cow<'_, str>| match host_and_port(name) {
        Ok((host, port)) => host != pin.host || port.unwrap_or(pin.usual_port()) != pin.port,
        Err(_) => true,
    };
    let name = named.find(strange).unwrap_or_default();
    match host_and_port(&name) {
        // The policy takes an authority without a port for one of plain HTTP.
        Ok((_, None)) if pin.secure => format!("{name}:{}", pin.usual_port()),
        _ => name.into_owned(),
    }
}

/// Makes a request one that a client would send itself: its host in canonical form, the target
/// in the form of the version, nothing that is meant for the next hop only (RFC 9110 7.6.1). An
/// upgrade is offered on only where `upgrade` says so.
///
/// Expects a request that goes where `to` says, which [`check`] let pass or the policy let out.
pub(super) fn outward<B>(request: &mut Request<B>, to: &RequestTarget, alpn: Alpn, upgrade: bool) {
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
        let whole = Uri::builder()
            .scheme(to.scheme.as_str())
            .authority(to.authority())
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
    if let Some(host) = headers.get(HOST).and_then(|host| canonical(host, to)) {
        headers.insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(target);
    *request.version_mut() = Version::HTTP_11;
}

/// A `Host` in the one spelling that goes out; the port stays if it was named.
fn canonical(host: &HeaderValue, to: &RequestTarget) -> Option<HeaderValue> {
    let (_, port) = host_and_port(host.to_str().ok()?).ok()?;
    HeaderValue::from_str(&authority(&to.host, port)).ok()
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
        // A client could otherwise have the name or the length it was judged by removed.
        .filter(|name| name != HOST && name != CONTENT_LENGTH)
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
#[path = "request_tests.rs"]
mod tests;
