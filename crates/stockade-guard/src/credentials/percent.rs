//! Percent-encoding (RFC 3986, section 2.1), as far as searching for what it hides needs it.

/// The byte of a percent-encoding at the beginning of a text.
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
