//! Request targets: whom a request is for and what it asks, in one canonical form.
//!
//! [`RequestTarget`] is the only reader of URLs and of HTTP's own ways to name a target
//! (RFC 9112 3.2, RFC 9113 8.3.1). Every name in a request must be the same one; what names two
//! hosts, or could be read in two ways, is a typed refusal.

mod error;
mod path;

use std::fmt;

use crate::host::{Host, host_and_port};

pub use error::TargetError;
pub use path::{Doubt, PathError, PathPrefix, RequestPath};

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Inside TLS.
    Https,
}

impl Scheme {
    /// The scheme as URLs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port meant where none is named (RFC 9110 4.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Reads a scheme, in any case (RFC 3986 3.1).
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }
}

/// How a request wrote its target (RFC 9112 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`, with the host in a header.
    Origin,
    /// `http://host/path?query`, as proxies get it.
    Absolute,
    /// `host:port`, for CONNECT alone.
    Authority,
    /// `*`, for OPTIONS alone.
    Asterisk,
}

/// Whom a request is for and what it asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestTarget {
    /// How it travels.
    pub scheme: Scheme,
    /// The one host all of it names.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// The path, canonical.
    pub path: RequestPath,
    /// What stands behind the first `?`, as it was written.
    pub query: Option<String>,
    /// How it was written.
    pub form: TargetForm,
}

/// A request line and its `Host` headers, as they arrived over a connection.
#[derive(Debug, Clone, Copy)]
pub struct Http1Target<'a> {
    /// How the connection carries it.
    pub scheme: Scheme,
    /// The method.
    pub method: &'a str,
    /// The request target.
    pub target: &'a str,
    /// The value of every `Host` header there is.
    pub hosts: &'a [&'a str],
}

/// The pseudo-headers of an HTTP/2 or HTTP/3 request and its `Host` headers.
#[derive(Debug, Clone, Copy)]
pub struct Http2Target<'a> {
    /// How the connection carries it.
    pub connection: Scheme,
    /// `:method`.
    pub method: &'a str,
    /// `:scheme`.
    pub scheme: Option<&'a str>,
    /// `:authority`.
    pub authority: Option<&'a str>,
    /// `:path`.
    pub path: Option<&'a str>,
    /// The value of every `Host` header there is.
    pub hosts: &'a [&'a str],
}

impl RequestTarget {
    /// Reads an absolute URL with `http` or `https`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] says what is wrong with it.
    pub fn url(text: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::NotAbsolute)?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| TargetError::Scheme(clipped(scheme)))?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if tail.contains('#') {
            return Err(TargetError::Fragment);
        }
        let (host, port) = read_authority(authority)?;
        let (path, query) = path_and_query(tail)?;
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
            path,
            query,
            form: TargetForm::Absolute,
        })
    }

    /// Reads the target of an HTTP/1 request. There must be exactly one `Host` header, and
    /// where the target has a host of its own the two must be one (RFC 9112 3.2.2 would let a
    /// proxy ignore the header; a server behind might not).
    ///
    /// # Errors
    ///
    /// [`TargetError`] where the request is not well-formed or names two hosts.
    pub fn http1(request: &Http1Target<'_>) -> Result<Self, TargetError> {
        let host = match request.hosts {
            [] => return Err(TargetError::NoHost),
            [host] => *host,
            _ => return Err(TargetError::ManyHosts),
        };
        let named = read_authority(host)?;
        let (form, own) = match (request.method, request.target) {
            ("CONNECT", target) => (TargetForm::Authority, Some(Self::connect(target, request.scheme)?)),
            (_, target) if target.starts_with('/') => (TargetForm::Origin, None),
            ("OPTIONS", "*") => (TargetForm::Asterisk, None),
            (_, target) if target.contains("://") => (TargetForm::Absolute, Some(Self::url(target)?)),
            (_, target) => return Err(TargetError::Form(clipped(target))),
        };
        if let Some(own) = own {
            let default = own.scheme.default_port();
            let port = if form == TargetForm::Authority {
                named.1.unwrap_or(own.port)
            } else {
                named.1.unwrap_or(default)
            };
            if own.scheme != request.scheme && form == TargetForm::Absolute {
                return Err(TargetError::OtherScheme);
            }
            own.agrees(&named.0, port)?;
            return Ok(own);
        }
        let (path, query) = match form {
            TargetForm::Asterisk => (RequestPath::asterisk(), None),
            _ => path_and_query(request.target)?,
        };
        Ok(Self {
            scheme: request.scheme,
            host: named.0,
            port: named.1.unwrap_or(request.scheme.default_port()),
            path,
            query,
            form,
        })
    }

    /// Reads the target of an HTTP/2 request (RFC 9113 8.3.1); `Host` may be absent and, where
    /// it is not, must agree with `:authority`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where a pseudo-header is missing or two names disagree.
    pub fn http2(request: &Http2Target<'_>) -> Result<Self, TargetError> {
        let authority = request
            .authority
            .filter(|text| !text.is_empty())
            .ok_or(TargetError::NoHost)?;
        if request.method == "CONNECT" {
            // Extended CONNECT (RFC 8441) has a path; plain CONNECT has neither.
            if request.path.is_none() && request.scheme.is_none() {
                return Self::connect(authority, request.connection);
            }
        }
        let scheme = request.scheme.ok_or(TargetError::NoScheme)?;
        let scheme = Scheme::parse(scheme).ok_or_else(|| TargetError::Scheme(clipped(scheme)))?;
        if scheme != request.connection {
            return Err(TargetError::OtherScheme);
        }
        let (host, port) = read_authority(authority)?;
        let (form, (path, query)) = match (request.method, request.path) {
            ("OPTIONS", Some("*")) => (TargetForm::Asterisk, (RequestPath::asterisk(), None)),
            (_, Some(path)) if path.starts_with('/') => (TargetForm::Origin, path_and_query(path)?),
            (_, path) => return Err(TargetError::Form(clipped(path.unwrap_or_default()))),
        };
        let this = Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
            path,
            query,
            form,
        };
        match request.hosts {
            [] => {}
            [host] => {
                let (host, port) = read_authority(host)?;
                this.agrees(&host, port.unwrap_or(scheme.default_port()))?;
            }
            _ => return Err(TargetError::ManyHosts),
        }
        Ok(this)
    }

    /// The target of CONNECT: host and port and nothing else (RFC 9110 9.3.6).
    fn connect(target: &str, scheme: Scheme) -> Result<Self, TargetError> {
        let (host, port) = read_authority(target)?;
        Ok(Self {
            scheme,
            host,
            port: port.ok_or(TargetError::NoPort)?,
            path: RequestPath::parse("/")?,
            query: None,
            form: TargetForm::Authority,
        })
    }

    fn agrees(&self, host: &Host, port: u16) -> Result<(), TargetError> {
        if &self.host == host && self.port == port {
            return Ok(());
        }
        let place = |host: &Host, port: u16| format!("{}:{port}", bracketed(host));
        Err(TargetError::Disagree {
            target: place(&self.host, self.port),
            header: place(host, port),
        })
    }

    /// `host`, with the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for RequestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_str();
        write!(f, "{}://{}{path}", self.scheme.as_str(), self.authority())?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// A host as it stands in URLs.
pub(crate) fn bracketed(host: &Host) -> String {
    match host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_string(),
    }
}

fn read_authority(text: &str) -> Result<(Host, Option<u16>), TargetError> {
    if text.contains('@') {
        return Err(TargetError::UserInfo);
    }
    // Brackets are what tells an IPv6 address from a port here (RFC 3986 3.2.2).
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Err(TargetError::Authority(clipped(text)));
    }
    if let Some((host, port)) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
    {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let is_port = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
        if !host.is_empty() && !is_port {
            return Err(TargetError::Port(clipped(port)));
        }
    }
    Ok(host_and_port(text)?)
}

/// Splits at the first `?` and reads both parts; an empty path is `/`.
fn path_and_query(text: &str) -> Result<(RequestPath, Option<String>), TargetError> {
    if text.len() > path::LONGEST {
        return Err(PathError::TooLong.into());
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if let Some(query) = query
        && let Some(at) = query.bytes().position(|byte| !path::may_stand(byte))
    {
        return Err(path::character(text, path.len() + 1 + at).into());
    }
    let path = RequestPath::parse(if path.is_empty() { "/" } else { path })?;
    Ok((path, query.map(str::to_owned)))
}

/// Text of others in an error: escaped and not too long.
fn clipped(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    short.escape_default().to_string()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
