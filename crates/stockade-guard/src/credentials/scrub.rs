//! Scrubbing: what a server echoes of a secret does not reach the sandbox.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE},
    response::Parts,
};
use hyper::ext::ReasonPhrase;
use stockade_ports::SecretValue;
use zeroize::Zeroizing;

use super::{
    CredentialFault,
    forms::{Begins, Form},
};

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// Every form of every secret, by the bytes they can begin with.
struct Searched {
    forms: Vec<Form>,
    by_first: Vec<Vec<u16>>,
    /// One bit for each pair of bytes that some form can begin with: almost every place of a text is passed over by it.
    pairs: Vec<u64>,
}

impl Searched {
    fn new(forms: Vec<Form>) -> Self {
        let begins = |bytes: &[u8]| {
            let fits = (0_u16..)
                .zip(&forms)
                .filter(|(_, form)| form.begins(bytes, false) != Begins::No);
            fits.map(|(place, _)| place).collect::<Vec<u16>>()
        };
        let by_first: Vec<_> = (0..=255).map(|first| begins(&[first])).collect();
        let mut pairs = vec![0; 1 << 10];
        for (first, forms_of) in (0_u8..=255).zip(&by_first) {
            for second in (0_u8..=255).filter(|_| !forms_of.is_empty()) {
                let text = [first, second];
                if forms_of
                    .iter()
                    .any(|place| forms[usize::from(*place)].begins(&text, false) != Begins::No)
                {
                    let (word, bit) = place_of(first, second);
                    pairs[word] |= bit;
                }
            }
        }
        Self { forms, by_first, pairs }
    }

    /// Whether some form can begin here; never no where one does.
    fn may_begin(&self, bytes: &[u8]) -> bool {
        let [first, second, ..] = bytes else { return true };
        let (word, bit) = place_of(*first, *second);
        self.pairs[word] & bit != 0
    }
}

fn place_of(first: u8, second: u8) -> (usize, u64) {
    let place = usize::from(first) << 8 | usize::from(second);
    (place >> 6, 1 << (place & 63))
}

/// Replaces secrets in a stream by [`REDACTED`], in every form that [`super`] names, also where a secret is split over
/// chunks. What could be the beginning of one is held back until the next chunk, or the end, tells.
pub struct Scrubber {
    searched: Arc<Searched>,
    held: Zeroizing<Vec<u8>>,
    found: u64,
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl Scrubber {
    /// A scrubber for these values.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a SecretValue>) -> Self {
        let mut values: Vec<&[u8]> = values.into_iter().map(SecretValue::expose).collect();
        // A secret within another one must not break the longer one up.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let forms: Vec<Form> = values
            .iter()
            .filter(|v| !v.is_empty())
            .flat_map(|v| Form::all(v))
            .collect();
        Self {
            searched: Arc::new(Searched::new(forms)),
            held: Zeroizing::default(),
            found: 0,
        }
    }

    /// A scrubber for the same values at the beginning of another stream.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            searched: Arc::clone(&self.searched),
            held: Zeroizing::default(),
            found: 0,
        }
    }

    /// How many secrets were replaced so far.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The next bytes of the stream, as far as they are known to be clean.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() {
            return self.pass(chunk, false);
        }
        self.held.extend_from_slice(&chunk);
        let whole = Bytes::from(std::mem::take(&mut *self.held));
        self.pass(whole, false)
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self) -> Bytes {
        let rest = Bytes::from(std::mem::take(&mut *self.held));
        self.pass(rest, true)
    }

    fn pass(&mut self, bytes: Bytes, end: bool) -> Bytes {
        let mut out: Option<Vec<u8>> = None;
        let (mut clean, mut at) = (0, 0);
        while at < bytes.len() {
            if !self.searched.may_begin(&bytes[at..]) {
                at += 1;
                continue;
            }
            match self.begins(&bytes[at..], end) {
                Begins::No => at += 1,
                Begins::Perhaps => break,
                Begins::With(width) => {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&bytes[clean..at]);
                    out.extend_from_slice(REDACTED.as_bytes());
                    at += width;
                    clean = at;
                    self.found += 1;
                }
            }
        }
        self.held.extend_from_slice(&bytes[at..]);
        match out {
            None => bytes.slice(clean..at),
            Some(mut out) => {
                out.extend_from_slice(&bytes[clean..at]);
                out.into()
            }
        }
    }

    /// The first form, in a fixed order, that the bytes begin with or may yet begin with. Waiting for an undecided
    /// form before a later one is looked at makes the result independent of where the stream was cut.
    fn begins(&self, bytes: &[u8], end: bool) -> Begins {
        let Some(first) = bytes.first() else { return Begins::No };
        for place in &self.searched.by_first[usize::from(*first)] {
            match self.searched.forms[usize::from(*place)].begins(bytes, end) {
                Begins::No => {}
                decided => return decided,
            }
        }
        Begins::No
    }

    /// Scrubs bytes that are all there is.
    fn whole(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let mut scrubber = self.fresh();
        let clean = scrubber.pass(Bytes::copy_from_slice(bytes), true);
        self.found += scrubber.found;
        (scrubber.found > 0).then_some(clean)
    }

    /// Scrubs the values of headers or trailers.
    pub fn headers(&mut self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some(clean) = self.whole(value.as_bytes()) {
                // A header's value that had its secrets replaced by plain characters is one still.
                *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(REDACTED));
            }
        }
    }

    /// Scrubs the head of a response whose body goes through [`super::ScrubbedBody`]: its headers; its reason phrase,
    /// which nobody needs, is dropped, and so is its length, which may change.
    pub fn head(&mut self, head: &mut Parts) {
        self.headers(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        head.extensions.remove::<ReasonPhrase>();
    }
}

/// Refuses a response to a request with a credential that cannot be searched: the request asked for no content coding
/// and no range, so one comes from a server that does not listen, or that was told to hide something.
///
/// # Errors
///
/// [`CredentialFault::Opaque`].
pub fn admissible(head: &Parts) -> Result<(), CredentialFault> {
    let coded = |value: &HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if head.headers.get_all(CONTENT_ENCODING).iter().any(coded) {
        return Err(CredentialFault::Opaque(
            "compressed although nothing but 'identity' was asked for",
        ));
    }
    if head.status == StatusCode::PARTIAL_CONTENT || head.headers.contains_key(CONTENT_RANGE) {
        return Err(CredentialFault::Opaque("a part although all was asked for"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "scrub_tests.rs"]
mod tests;
