//! Whether a binding covers a request.

use http::Method;
use stockade_domain::CredentialBinding;
use stockade_policy::Host;

/// Most times a text is decoded before it counts as hiding something.
const ROUNDS: usize = 3;

/// Where a request goes, as the Guard has judged it: every name in the request agrees with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The host.
    pub host: &'a Host,
    /// The port.
    pub port: u16,
    /// Whether the Guard speaks TLS to it, with a certificate it has verified.
    pub tls: bool,
}

/// Whether the secret of a binding may go into a request. In doubt it may not.
pub(super) fn covers(binding: &CredentialBinding, to: Destination<'_>, method: &Method, path: &str) -> bool {
    // TRACE sends back what it got (RFC 9110, section 9.3.8).
    let methods = match binding.methods.is_empty() {
        true => *method != Method::TRACE && *method != Method::CONNECT,
        false => binding.methods.iter().any(|m| m == method.as_str()),
    };
    to.tls && methods && binding.hosts.iter().any(|host| hosts(host, to)) && paths(&binding.paths, path)
}

/// Whether some request to this destination is covered.
pub(super) fn is_bound(binding: &CredentialBinding, to: Destination<'_>) -> bool {
    to.tls && binding.hosts.iter().any(|host| hosts(host, to))
}

fn hosts(written: &str, to: Destination<'_>) -> bool {
    let Some(name) = to.host.name() else { return false };
    let (host, port) = match written.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (written, Some(443)),
    };
    let named = match host.strip_prefix("*.") {
        Some(suffix) => name.is_below(suffix),
        None => name.as_str() == host,
    };
    named && port == Some(to.port)
}

/// Whether a path lies below one of these, by whole segments. A path that leads back up, however it is written,
/// lies below none.
fn paths(prefixes: &[String], path: &str) -> bool {
    if prefixes.is_empty() {
        return true;
    }
    if leads_back(path) {
        return false;
    }
    let parts: Vec<String> = path.split('/').skip(1).map(plain).collect();
    prefixes.iter().any(|prefix| {
        let wanted: Vec<&str> = prefix
            .trim_matches('/')
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        wanted.len() <= parts.len() && wanted.iter().zip(&parts).all(|(wanted, part)| *wanted == part.as_str())
    })
}

/// A segment with its unreserved characters decoded (RFC 3986, section 6.2.2.2): those mean the same either way.
fn plain(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let (mut text, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match escaped(&bytes[at..]) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                text.push(byte);
                at += 3;
            }
            _ => {
                text.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The byte of a percent-encoding at the beginning of a text (RFC 3986, section 2.1).
pub(super) fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A text with its percent-encodings decoded once; `None` when there are none.
pub(super) fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let first = memchr::memchr(b'%', text)?;
    let mut bytes = text[..first].to_vec();
    let (mut at, mut changed) = (first, false);
    while at < text.len() {
        let byte = escaped(&text[at..]);
        changed |= byte.is_some();
        bytes.push(byte.unwrap_or(text[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    changed.then_some(bytes)
}

/// Whether some server would read a `.` or `..` segment out of a path: behind an encoded or a backward slash, with
/// a parameter (`..;x`), or encoded twice.
fn leads_back(path: &str) -> bool {
    let dots = |bytes: &[u8]| {
        bytes.split(|b| matches!(b, b'/' | b'\\')).any(|part| {
            let name = part.split(|b| *b == b';').next().unwrap_or_default();
            name == b"." || name == b".."
        })
    };
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..ROUNDS {
        if dots(&bytes) || bytes.contains(&0) {
            return true;
        }
        match decoded(&bytes) {
            Some(next) => bytes = next,
            None => return false,
        }
    }
    // Encoded more often than anything honest.
    true
}

#[cfg(test)]
#[path = "cover_tests.rs"]
mod tests;
