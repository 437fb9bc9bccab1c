//! Paths of requests: one canonical form, and a note where servers could read another.
//!
//! RFC 3986 2.3 and 6.2.2: an escaped unreserved character is that character, other escapes are
//! kept in upper case, and characters that need an escape get one. What different servers read
//! differently (dot segments, encoded separators, escapes within escapes, look-alikes of `/`) is
//! not guessed at: the path remembers the first such [`Doubt`], and wherever a rule's answer
//! would depend on the path, the doubt refuses the request.

use std::fmt;

/// Longest path and query, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// A request's path in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestPath {
    text: String,
    doubt: Option<Doubt>,
}

/// Why a path is no path at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("a path begins with '/'")]
    Start,
    /// It is longer than anybody needs.
    #[error("the path and query are longer than {LONGEST} bytes")]
    TooLong,
    /// A character that cannot stand in a path or query without an escape.
    #[error("byte {at} is {character:?}, which must be escaped in a path or query")]
    Character {
        /// Where, in bytes from the beginning of the path.
        at: usize,
        /// The character.
        character: char,
    },
    /// A percent sign without two hexadecimal digits.
    #[error("the '%' at byte {at} begins no escape; write '%25' for the sign itself")]
    Escape {
        /// Where, in bytes from the beginning of the path.
        at: usize,
    },
}

/// What makes a path mean different things to different servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// `.` or `..` as a segment, also escaped or with parameters behind it.
    DotSegment,
    /// An escaped `/` or `\`, or a `\` as it is.
    Separator,
    /// An escape that would be one again after it was taken off (`%252f`).
    DoubleEscape,
    /// An escaped control character, or bytes that are no UTF-8 (also overlong forms).
    Bytes,
    /// A character that Unicode compatibility turns into `/`, `\`, `.` or `%`.
    LookAlike,
}

impl Doubt {
    /// The doubt in words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::DotSegment => "it has a '.' or '..' segment, which some servers take away and some do not",
            Self::Separator => "it has an escaped slash or a backslash, which some servers take for a separator",
            Self::DoubleEscape => "it has an escape within an escape, which some servers take off twice",
            Self::Bytes => "it has escaped control characters or bytes that are no UTF-8",
            Self::LookAlike => "it has a character that some servers turn into '/', '\\', '.' or '%'",
        }
    }
}

/// Characters that NFKC turns into `/ \ . %`: full-width and small forms, and the leaders.
const LOOK_ALIKES: &str = "\u{ff0f}\u{ff3c}\u{fe68}\u{ff0e}\u{fe52}\u{ff05}\u{fe6a}\u{2024}\u{2025}\u{2026}";

impl RequestPath {
    /// Reads a path without its query.
    ///
    /// # Errors
    ///
    /// [`PathError`] for a text that RFC 3986 does not allow where a path stands.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > LONGEST {
            return Err(PathError::TooLong);
        }
        if !text.starts_with('/') {
            return Err(PathError::Start);
        }
        let mut canonical = String::with_capacity(text.len());
        let mut doubt = None;
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            at += match byte {
                b'%' => {
                    let value = escape(bytes, at).ok_or(PathError::Escape { at })?;
                    doubt = doubt.or(doubt_of_escape(value));
                    push(&mut canonical, value, unreserved(value));
                    3
                }
                b'\\' => {
                    doubt = doubt.or(Some(Doubt::Separator));
                    push(&mut canonical, byte, false);
                    1
                }
                _ if !may_stand(byte) => return Err(character(text, at)),
                _ => {
                    push(&mut canonical, byte, !needs_escape(byte));
                    1
                }
            };
        }
        let doubt = doubt.or_else(|| doubt_of_text(&canonical));
        Ok(Self { text: canonical, doubt })
    }

    /// The `*` of `OPTIONS *`, which is about the server and no path.
    pub(crate) fn asterisk() -> Self {
        Self {
            text: "*".to_owned(),
            doubt: None,
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What servers could read differently, if anything.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Whether it is `prefix` or below it, segment by segment, exactly as it is written.
    pub fn is_within(&self, prefix: &PathPrefix) -> bool {
        let text = self.text.as_str();
        let Some(rest) = text.strip_prefix(prefix.bare()) else {
            return false;
        };
        match prefix.0.ends_with('/') {
            true => rest.starts_with('/'),
            false => rest.is_empty() || rest.starts_with('/'),
        }
    }

    /// Whether every server takes it for `prefix` or something below it. Nothing in it may be in
    /// doubt but escaped separators, and with those it must be within `prefix` in either reading.
    pub fn is_surely_within(&self, prefix: &PathPrefix) -> bool {
        self.is_within(prefix)
            && match self.doubt {
                None => true,
                Some(Doubt::Separator) => {
                    let split = self.text.replace("%2F", "/").replace("%5C", "/");
                    Self::parse(&split).is_ok_and(|split| split.doubt.is_none() && split.is_within(prefix))
                }
                Some(_) => false,
            }
    }

    /// Whether some server may take it for `prefix` or something below it: without regard to
    /// ASCII case, to empty segments and to parameters behind `;`.
    pub fn may_be_within(&self, prefix: &PathPrefix) -> bool {
        let mut own = segments(&self.text);
        segments(&prefix.0).all(|wanted| own.next().is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The beginning of paths, as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Reads a prefix. With a slash at the end it means only what lies below.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong: a prefix must be clear where a request need not be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("path '{}': {why}", text.escape_default()));
        if text.contains(['*', '?', '#']) {
            return wrong("a path is a beginning without '*', '?' and '#': '/a/b' covers everything below it");
        }
        if text.contains(';') || text.contains("//") {
            return wrong("a path has no empty segments and no ';'");
        }
        let path = match RequestPath::parse(text) {
            Ok(path) => path,
            Err(error) => return wrong(&error.to_string()),
        };
        match path.doubt {
            Some(doubt) => wrong(doubt.reason()),
            None => Ok(Self(path.text)),
        }
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn bare(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }
}

/// The segments that are not empty, each without its parameters.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .map(without_parameters)
        .filter(|segment| !segment.is_empty())
}

fn without_parameters(segment: &str) -> &str {
    let plain = segment.split(';').next().unwrap_or_default();
    plain.split("%3B").next().unwrap_or_default()
}

fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = bytes.get(at + 1..at + 3)?;
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
}

fn doubt_of_escape(value: u8) -> Option<Doubt> {
    match value {
        b'/' | b'\\' => Some(Doubt::Separator),
        0..=0x1f | 0x7f => Some(Doubt::Bytes),
        _ => None,
    }
}

fn doubt_of_text(canonical: &str) -> Option<Doubt> {
    let dots = |segment: &str| matches!(without_parameters(segment), "." | "..");
    if canonical.split('/').any(dots) {
        return Some(Doubt::DotSegment);
    }
    if !canonical.contains('%') {
        return None;
    }
    // After the escapes of letters were taken off, so that these do not hide a second layer.
    let double = |(at, _): (usize, &str)| {
        canonical[at + 3..]
            .bytes()
            .take(2)
            .filter(u8::is_ascii_hexdigit)
            .count()
            == 2
    };
    if canonical.match_indices("%25").any(double) {
        return Some(Doubt::DoubleEscape);
    }
    let mut decoded = Vec::with_capacity(canonical.len());
    let bytes = canonical.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match escape(bytes, at).filter(|_| bytes[at] == b'%') {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    match std::str::from_utf8(&decoded) {
        Err(_) => Some(Doubt::Bytes),
        Ok(text) if text.contains(|c| LOOK_ALIKES.contains(c)) => Some(Doubt::LookAlike),
        Ok(_) => None,
    }
}

fn push(text: &mut String, byte: u8, plain: bool) {
    if plain {
        text.push(char::from(byte));
    } else {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        text.push('%');
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a request may have where its path and query stand: anything visible but `#`.
pub(super) fn may_stand(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// Visible characters that RFC 3986 wants escaped in a path and nobody reads as anything else.
fn needs_escape(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' | b'?'
    )
}

/// The error about the character at a byte.
pub(super) fn character(text: &str, at: usize) -> PathError {
    let character = text.get(at..).and_then(|rest| rest.chars().next());
    PathError::Character {
        at,
        character: character.unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
