//! Placeholders: what a sandbox holds in the place of a secret, and finding one wherever it was put.

use std::{fmt, sync::LazyLock};

use http::{HeaderMap, request::Parts};
use memchr::memmem::Finder;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{CredentialFault, forms::base64_core, percent::decoded};

/// How every placeholder begins. What looks for them looks for this, so that one of another run, of another time or
/// made up is found as well.
pub const MARKER: &str = "stk-placeholder-";

/// Most times a text is decoded in search of a placeholder.
const ROUNDS: usize = 3;

/// How much of a body is kept for what lies over two chunks: more than any form of the marker takes.
const OVERLAP: usize = 512;

/// What stands for one secret in one run. Worth nothing to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder(String);

impl Placeholder {
    /// A placeholder of 128 random bits.
    ///
    /// # Errors
    ///
    /// [`CredentialFault::NoRandomness`] when the system has none.
    pub fn mint() -> Result<Self, CredentialFault> {
        let mut bytes = [0; 16];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| CredentialFault::NoRandomness)?;
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self(format!("{MARKER}{digits}")))
    }

    /// The text a sandbox is given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text without this placeholder.
    pub(super) fn removed_from(&self, text: &[u8]) -> Vec<u8> {
        let (mut rest, mut at) = (Vec::with_capacity(text.len()), 0);
        for found in memchr::memmem::find_iter(text, &self.0) {
            rest.extend_from_slice(&text[at..found]);
            at = found + self.0.len();
        }
        rest.extend_from_slice(&text[at..]);
        rest
    }
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The name of the host.
    Name,
    /// Path or query.
    Target,
    /// A header, by its name; a trailer as well.
    Header(String),
    /// The body.
    Body,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("host name"),
            Self::Target => f.write_str("target"),
            Self::Header(name) => write!(f, "header '{name}'"),
            Self::Body => f.write_str("body"),
        }
    }
}

/// The forms that are looked for: as it is and in hexadecimal in any case, in base64 at every alignment.
struct Searched {
    any_case: [Finder<'static>; 2],
    base64: [Finder<'static>; 3],
}

static SEARCHED: LazyLock<Searched> = LazyLock::new(|| {
    let hex: String = MARKER.bytes().map(|b| format!("{b:02x}")).collect();
    let core = |shift| Finder::new(&base64_core(MARKER.as_bytes(), shift)).into_owned();
    Searched {
        any_case: [MARKER, hex.as_str()].map(|text| Finder::new(text).into_owned()),
        base64: [0, 1, 2].map(core),
    }
});

/// Whether a text holds a placeholder in a form the Guard can see.
pub(super) fn holds(text: &[u8]) -> bool {
    if holds_once(text) {
        return true;
    }
    let mut view = text.to_vec();
    for _ in 0..ROUNDS {
        let Some(next) = decoded(&view).or_else(|| without_json_escapes(&view)) else {
            return false;
        };
        if holds_once(&next) {
            return true;
        }
        view = next;
    }
    false
}

fn holds_once(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    if SEARCHED.any_case.iter().any(|form| form.find(&lower).is_some()) {
        return true;
    }
    let base64 = |text: &[u8]| SEARCHED.base64.iter().any(|form| form.find(text).is_some());
    if base64(text) {
        return true;
    }
    // Base64 may be broken into lines (RFC 2045, section 6.8), also within a text of another kind.
    let broken = |b: &u8| matches!(b, b'\r' | b'\n');
    text.iter().any(broken) && base64(&text.iter().copied().filter(|b| !broken(b)).collect::<Vec<_>>())
}

/// A text with the escapes of JSON strings decoded (RFC 8259, section 7), as far as ASCII goes; `None` when there
/// are none.
fn without_json_escapes(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', text)?;
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match super::forms::json_escape(&text[at..]) {
            Some((byte, width)) => {
                bytes.push(byte);
                at += width;
            }
            None => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    (bytes.len() != text.len()).then_some(bytes)
}

/// Refuses a host name that holds a placeholder: looking it up would tell it to name servers.
pub(crate) fn refuse_in_name(name: &str) -> Result<(), CredentialFault> {
    match holds(name.as_bytes()) {
        true => Err(CredentialFault::Placeholder(Place::Name)),
        false => Ok(()),
    }
}

/// Refuses a request's head that holds a placeholder; `except` is a header that is judged apart.
pub(super) fn refuse_in_head(head: &Parts, target: &[u8], except: Option<&str>) -> Result<(), CredentialFault> {
    if holds(target) || holds(head.method.as_str().as_bytes()) {
        return Err(CredentialFault::Placeholder(Place::Target));
    }
    refuse_in_headers(&head.headers, except)
}

pub(super) fn refuse_in_headers(headers: &HeaderMap, except: Option<&str>) -> Result<(), CredentialFault> {
    for (name, value) in headers {
        let judged_apart = except.is_some_and(|except| name.as_str() == except);
        if holds(name.as_str().as_bytes()) || !judged_apart && holds(value.as_bytes()) {
            return Err(CredentialFault::Placeholder(Place::Header(name.as_str().to_owned())));
        }
    }
    Ok(())
}

/// Looks for placeholders in a body, chunk by chunk, up to a limit.
#[derive(Debug)]
pub struct BodyScan {
    tail: Vec<u8>,
    left: u64,
}

impl BodyScan {
    /// Looks at the first `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            tail: Vec::new(),
            left: limit,
        }
    }

    /// Looks at the next chunk, before it goes on.
    ///
    /// # Errors
    ///
    /// [`CredentialFault::Placeholder`] where one ends in this chunk.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), CredentialFault> {
        let seen = usize::try_from(self.left).map_or(chunk.len(), |left| left.min(chunk.len()));
        if seen == 0 {
            return Ok(());
        }
        self.left -= seen as u64;
        self.tail.extend_from_slice(&chunk[..seen]);
        if holds(&self.tail) {
            return Err(CredentialFault::Placeholder(Place::Body));
        }
        let old = self.tail.len().saturating_sub(OVERLAP);
        self.tail.drain(..old);
        Ok(())
    }
}

#[cfg(test)]
#[path = "placeholder_tests.rs"]
mod tests;
