//! The secret in its place.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, AUTHORIZATION, IF_RANGE, RANGE},
    request::Parts,
    uri::PathAndQuery,
};
use stockade_domain::CredentialKind;
use zeroize::Zeroizing;

use super::{
    CredentialFault, Placeholder,
    percent::decoded,
    placeholder::{Place, holds},
};

/// Shortest secret that can be told from other text in an answer, in bytes.
pub(super) const SHORTEST: usize = 8;

/// Where the secret of a binding stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Header(HeaderName),
    Query(String),
}

impl Slot {
    /// The place of a kind. Bindings are checked when they are read, so their header names are valid.
    pub(super) fn of(kind: &CredentialKind) -> Self {
        match kind {
            CredentialKind::Query { name } => Self::Query(name.clone()),
            CredentialKind::Header { name, .. } => {
                Self::Header(HeaderName::from_bytes(name.as_bytes()).unwrap_or(AUTHORIZATION))
            }
            CredentialKind::Bearer
            | CredentialKind::Basic { .. }
            | CredentialKind::GithubApp { .. }
            | CredentialKind::OauthClient { .. } => Self::Header(AUTHORIZATION),
        }
    }

    /// The header, where it is one.
    pub(super) fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name) => Some(name.as_str()),
            Self::Query(_) => None,
        }
    }

    /// Path and query as they are searched for placeholders: without the parameter that is judged apart.
    pub(super) fn target(slot: Option<&Self>, uri: &Uri) -> Vec<u8> {
        let mut text = uri.path().as_bytes().to_vec();
        let apart = |pair: &&str| matches!(slot, Some(Self::Query(name)) if names(pair, name));
        for pair in pairs(uri).filter(|pair| !apart(pair)) {
            text.push(b'&');
            text.extend_from_slice(pair.as_bytes());
        }
        text
    }

    /// What the client has put where the secret will stand: at most one value, and of placeholders only this one.
    pub(super) fn check(&self, head: &Parts, own: &Placeholder) -> Result<(), CredentialFault> {
        let (values, place): (Vec<Vec<u8>>, _) = match self {
            Self::Header(name) => {
                let values = head.headers.get_all(name).iter();
                let place = Place::Header(name.as_str().to_owned());
                (values.map(|value| value.as_bytes().to_vec()).collect(), place)
            }
            Self::Query(name) => {
                let values = pairs(&head.uri).filter(|pair| names(pair, name));
                (values.map(|pair| pair.as_bytes().to_vec()).collect(), Place::Target)
            }
        };
        if values.len() > 1 {
            let name = match self {
                Self::Header(name) => name.as_str(),
                Self::Query(name) => name,
            };
            return Err(CredentialFault::SeveralValues(name.to_owned()));
        }
        let foreign = |value: &Vec<u8>| {
            let clear = basic(value).or_else(|| decoded(value)).unwrap_or_else(|| value.clone());
            holds(&own.removed_from(&clear))
        };
        match values.iter().any(foreign) {
            true => Err(CredentialFault::Placeholder(place)),
            false => Ok(()),
        }
    }
}

/// User and password of Basic credentials (RFC 7617).
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_basic = scheme.eq_ignore_ascii_case(b"basic ");
    is_basic.then(|| STANDARD.decode(rest.trim_ascii()).ok())?
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().into_iter().flat_map(|query| query.split('&'))
}

fn names(pair: &str, name: &str) -> bool {
    let written = pair.split('=').next().unwrap_or_default().as_bytes();
    decoded(written).as_deref().unwrap_or(written) == name.as_bytes()
}

/// Puts a value in, in the place of what the client sent there, and asks for an answer that can be searched for it.
///
/// # Errors
///
/// In words for the secret's owner why the value cannot stand there.
pub(super) fn put(kind: &CredentialKind, slot: &Slot, value: &[u8], head: &mut Parts) -> Result<(), &'static str> {
    if value.len() < SHORTEST {
        return Err(
            "it is shorter than 8 bytes, which could not be told from other text in an answer; use a longer one",
        );
    }
    match slot {
        Slot::Header(name) => {
            let text = text_of(kind, value, head.uri.path());
            let visible = |b: &u8| (0x20..=0x7e).contains(b);
            if !text.iter().all(visible) || text.ends_with(b" ") || value.starts_with(b" ") {
                return Err("it holds characters that no header can carry, perhaps a line break; set it without them");
            }
            let mut line = HeaderValue::from_bytes(&text).map_err(|_| "it cannot stand in a header")?;
            line.set_sensitive(true);
            head.headers.insert(name, line);
        }
        Slot::Query(name) => {
            head.uri = with_parameter(&head.uri, name, value).ok_or("it makes the request's target too long")?;
        }
    }
    head.headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // A part of an answer can hold a part of a secret, which nobody would recognise.
    head.headers.remove(RANGE);
    head.headers.remove(IF_RANGE);
    Ok(())
}

/// The header's value.
fn text_of(kind: &CredentialKind, value: &[u8], path: &str) -> Zeroizing<Vec<u8>> {
    let after = |prefix: &str| Zeroizing::new([prefix.as_bytes(), value].concat());
    let basic = |user: &str| {
        let pair = Zeroizing::new([user.as_bytes(), b":", value].concat());
        let encoded = Zeroizing::new(STANDARD.encode(&*pair));
        Zeroizing::new([b"Basic ", encoded.as_bytes()].concat())
    };
    match kind {
        CredentialKind::Basic { username } => basic(username),
        CredentialKind::Header { prefix, .. } => after(prefix),
        // GitHub's git takes an installation token as a password only, its API as a bearer.
        CredentialKind::GithubApp { .. } if is_git(path) => basic("x-access-token"),
        CredentialKind::Bearer
        | CredentialKind::GithubApp { .. }
        | CredentialKind::OauthClient { .. }
        | CredentialKind::Query { .. } => after("Bearer "),
    }
}

/// The paths of git's smart HTTP protocol (gitprotocol-http) and of Git LFS.
fn is_git(path: &str) -> bool {
    ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .iter()
        .any(|end| path.ends_with(end))
        || path.contains(".git/info/lfs/")
}

fn with_parameter(uri: &Uri, name: &str, value: &[u8]) -> Option<Uri> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let encoded: String = value
        .iter()
        .map(|b| match plain(*b) {
            true => char::from(*b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect();
    let own = format!("{name}={encoded}");
    let mut put = false;
    let mut query: Vec<&str> = Vec::new();
    for pair in pairs(uri) {
        let is_own = names(pair, name);
        put |= is_own;
        query.push(if is_own { &own } else { pair });
    }
    if !put {
        query.push(&own);
    }
    let target: PathAndQuery = format!("{}?{}", uri.path(), query.join("&")).parse().ok()?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
#[path = "inject_tests.rs"]
mod tests;
