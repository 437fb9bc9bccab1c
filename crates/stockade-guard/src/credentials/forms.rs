//! The forms in which a secret can stand in a text, and recognising one at the beginning of bytes that are still
//! arriving.

use zeroize::Zeroizing;

use super::percent::escaped;

/// What bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// Not with this form, whatever comes.
    No,
    /// With a part of it; the next bytes will tell.
    Perhaps,
    /// With all of it, this long.
    With(usize),
}

/// One form of one secret.
pub(super) enum Form {
    /// As it is.
    Plain(Zeroizing<Vec<u8>>),
    /// Any of its bytes percent-encoded (RFC 3986), spaces also as `+` (WHATWG URL).
    Percent(Zeroizing<Vec<u8>>),
    /// Any of its bytes escaped as in a JSON string (RFC 8259).
    Json(Zeroizing<Vec<u8>>),
    /// Hexadecimal digits in any case.
    Hex(Zeroizing<Vec<u8>>),
    /// Base64 at one alignment, in both alphabets (RFC 4648): for each character the sextets it may be, as bits. The
    /// characters at the ends carry bits of what stands beside the secret.
    Base64(Zeroizing<Vec<u64>>),
}

/// One unit of an encoding.
enum Unit<T> {
    /// What it means, and how many bytes it takes.
    Is(T, usize),
    /// It is not complete.
    Cut,
    /// It is no unit.
    None,
}

impl Form {
    /// All forms of a secret, the plainest first.
    pub(super) fn all(secret: &[u8]) -> Vec<Self> {
        let own = || Zeroizing::new(secret.to_vec());
        let mut forms = vec![
            Self::Plain(own()),
            Self::Percent(own()),
            Self::Json(own()),
            Self::Hex(own()),
        ];
        forms.extend([0, 1, 2].map(|shift| Self::Base64(Zeroizing::new(sextets(secret, shift)))));
        forms
    }

    /// Whether these bytes begin with the form; `end` says that no more will come.
    pub(super) fn begins(&self, bytes: &[u8], end: bool) -> Begins {
        let begins = match self {
            Self::Plain(secret) => plain(secret, bytes),
            // A plus is a space in a form and itself elsewhere.
            Self::Percent(secret) => {
                unit_by_unit(secret, bytes, percent_unit, |is, wanted| is == b'+' && wanted == b' ')
            }
            Self::Json(secret) => unit_by_unit(secret, bytes, json_unit, |_, _| false),
            Self::Hex(secret) => unit_by_unit(secret, bytes, hex_unit, |_, _| false),
            Self::Base64(sets) => base64(sets, bytes),
        };
        match begins {
            Begins::Perhaps if end => Begins::No,
            other => other,
        }
    }
}

fn plain(secret: &[u8], bytes: &[u8]) -> Begins {
    let both = secret.len().min(bytes.len());
    match secret[..both] == bytes[..both] {
        false => Begins::No,
        true if both == secret.len() => Begins::With(both),
        true => Begins::Perhaps,
    }
}

fn unit_by_unit(secret: &[u8], bytes: &[u8], unit: fn(&[u8]) -> Unit<u8>, also: fn(u8, u8) -> bool) -> Begins {
    let mut at = 0;
    for wanted in secret {
        match unit(&bytes[at..]) {
            Unit::Is(is, width) if is == *wanted || also(is, *wanted) => at += width,
            Unit::Cut => return Begins::Perhaps,
            Unit::Is(..) | Unit::None => return Begins::No,
        }
    }
    Begins::With(at)
}

fn percent_unit(bytes: &[u8]) -> Unit<u8> {
    match bytes {
        [] | [b'%'] => Unit::Cut,
        [b'%', digit] if digit.is_ascii_hexdigit() => Unit::Cut,
        [b'%', ..] => escaped(bytes).map_or(Unit::None, |byte| Unit::Is(byte, 3)),
        [byte, ..] => Unit::Is(*byte, 1),
    }
}

fn json_unit(bytes: &[u8]) -> Unit<u8> {
    match bytes {
        [] | [b'\\'] => Unit::Cut,
        [b'\\', b'u', digits @ ..] if digits.len() < 4 && digits.iter().all(u8::is_ascii_hexdigit) => Unit::Cut,
        [b'\\', ..] => json_escape(bytes).map_or(Unit::None, |(byte, width)| Unit::Is(byte, width)),
        [byte, ..] => Unit::Is(*byte, 1),
    }
}

/// The ASCII character of an escape at the beginning of a text, and its width.
pub(super) fn json_escape(text: &[u8]) -> Option<(u8, usize)> {
    let [b'\\', kind, rest @ ..] = text else { return None };
    let simple = match kind {
        b'"' | b'\\' | b'/' => *kind,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'f' => 12,
        b'r' => b'\r',
        b'u' => {
            let digits = std::str::from_utf8(rest.get(..4)?).ok()?;
            let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let code = u8::from_str_radix(digits, 16)
                .ok()
                .filter(|code| all && code.is_ascii())?;
            return Some((code, 6));
        }
        _ => return None,
    };
    Some((simple, 2))
}

fn hex_unit(bytes: &[u8]) -> Unit<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    match bytes {
        [] => Unit::Cut,
        [high] => digit(high).map_or(Unit::None, |_| Unit::Cut),
        [high, low, ..] => match (digit(high), digit(low)) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).map_or(Unit::None, |byte| Unit::Is(byte, 2)),
            _ => Unit::None,
        },
    }
}

fn base64(sets: &[u64], bytes: &[u8]) -> Begins {
    let mut at = 0;
    for (place, set) in sets.iter().enumerate() {
        // Lines may be broken within, not before.
        loop {
            match line_break(&bytes[at..]) {
                Unit::Is((), width) if place > 0 => at += width,
                Unit::Cut if place > 0 => return Begins::Perhaps,
                _ => break,
            }
        }
        match sextet_unit(&bytes[at..]) {
            Unit::Is(sextet, width) if set >> sextet & 1 == 1 => at += width,
            Unit::Cut => return Begins::Perhaps,
            Unit::Is(..) | Unit::None => return Begins::No,
        }
    }
    Begins::With(at)
}

/// A line break, also as a JSON string writes it.
fn line_break(bytes: &[u8]) -> Unit<()> {
    match bytes {
        [] | [b'\\'] => Unit::Cut,
        [b'\r' | b'\n', ..] => Unit::Is((), 1),
        [b'\\', b'r' | b'n', ..] => Unit::Is((), 2),
        _ => Unit::None,
    }
}

/// A character of base64, also percent-encoded or with the slash of a JSON string.
fn sextet_unit(bytes: &[u8]) -> Unit<u8> {
    let (byte, width) = match (percent_unit(bytes), bytes) {
        (_, [] | [b'\\']) => return Unit::Cut,
        (_, [b'\\', b'/', ..]) => (b'/', 2),
        (Unit::Is(byte, width), _) => (byte, width),
        (Unit::Cut, _) => return Unit::Cut,
        (Unit::None, _) => return Unit::None,
    };
    sextet(byte).map_or(Unit::None, |sextet| Unit::Is(sextet, width))
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// The sextets of a text whose first byte stands `shift` bytes after the beginning of a group of three.
fn sextets(text: &[u8], shift: usize) -> Vec<u64> {
    let (begin, end) = (8 * shift, 8 * (shift + text.len()));
    let bit = |at: usize| text[(at - begin) / 8] >> (7 - at % 8) & 1;
    let set = |place: usize| {
        let known = (0..6).filter_map(|i| {
            let at = 6 * place + i;
            (begin..end).contains(&at).then(|| (5 - i, bit(at)))
        });
        let known: Vec<(usize, u8)> = known.collect();
        let fits = |sextet: &u64| known.iter().all(|(i, bit)| (sextet >> i & 1) as u8 == *bit);
        (0..64).filter(fits).fold(0, |set, sextet| set | 1 << sextet)
    };
    (begin / 6..end.div_ceil(6)).map(set).collect()
}

/// The characters of base64 that depend on a text alone, whatever stands around it.
pub(super) fn base64_core(text: &[u8], shift: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let certain = sextets(text, shift).into_iter().filter(|set| set.count_ones() == 1);
    certain.map(|set| ALPHABET[set.trailing_zeros() as usize]).collect()
}
