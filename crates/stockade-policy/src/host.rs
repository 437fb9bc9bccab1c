//! Hosts: the one parser for what somebody calls a host, and its canonical form.
//!
//! Whatever names a destination (a DNS question, SNI, a `Host` header, an environment's
//! list, a rule) goes through [`Host::parse`], so that two spellings of one host are one
//! value and a text that two parsers could read differently is refused.
//!
//! A name becomes lower case A-labels (RFC 5890, UTS #46) of letters, digits and inner
//! hyphens, without the root's dot. Anything a C library would take for an IPv4 address
//! (`inet_aton`: decimal, octal, hexadecimal, one to four parts) is that address, as the
//! URL standard does it; a text that ends in a number and is no address is refused.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use idna::AsciiDenyList;

/// Longest text looked at, before any conversion.
const MAX_TEXT: usize = 1024;
/// Longest name (RFC 1035, without the root's dot).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035).
const MAX_LABEL: usize = 63;

/// A destination in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Name(HostName),
    /// An address; v4-mapped ones are IPv4.
    Address(IpAddr),
}

/// A domain name in canonical form: lower case A-labels, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Longer than a name can be.
    #[error("the host is longer than {MAX_NAME} characters")]
    TooLong,
    /// A label is empty, too long or not made of letters, digits and inner hyphens.
    #[error("'{label}' is not a valid part of a host name")]
    Label {
        /// The label, escaped.
        label: String,
    },
    /// A character that no host name has.
    #[error("a host name cannot contain {0:?}")]
    Character(char),
    /// Not a valid internationalized name.
    #[error("not a valid internationalized host name")]
    Idna,
    /// Looks like an address and is none.
    #[error("it looks like an address and is not one")]
    Address,
}

impl Host {
    /// Reads a host as anybody may spell it. Brackets are for IPv6 addresses only; a port
    /// is not part of a host.
    ///
    /// # Errors
    ///
    /// [`HostError`] where the text is no host or could be read in two ways.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(HostError::TooLong);
        }
        if let Some(inner) = text.strip_prefix('[') {
            return ipv6(inner.strip_suffix(']').ok_or(HostError::Character('['))?);
        }
        if text.contains(':') {
            return ipv6(text);
        }
        if let Some(bad) = text.chars().find(|c| c.is_ascii() && !is_name_character(*c)) {
            return Err(HostError::Character(bad));
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::STD3).map_err(|_| HostError::Idna)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if ends_in_a_number(name) {
            return ipv4(name)
                .map(|address| Self::Address(address.into()))
                .ok_or(HostError::Address);
        }
        HostName::checked(name).map(Self::Name)
    }

    /// The name, where it is one.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl HostName {
    fn checked(name: &str) -> Result<Self, HostError> {
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(HostError::TooLong);
        }
        for label in name.split('.') {
            let bytes = label.as_bytes();
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            let fits = (1..=MAX_LABEL).contains(&bytes.len())
                && bytes.iter().all(inner)
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-';
            if !fits {
                return Err(HostError::Label {
                    label: label.escape_default().to_string(),
                });
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name lies below `suffix`: `a.b.c` is below `b.c` and `c`, never below itself.
    pub fn is_below(&self, suffix: &str) -> bool {
        self.0
            .strip_suffix(suffix)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty())
    }

    /// Whether it has more than one label.
    pub fn is_dotted(&self) -> bool {
        self.0.contains('.')
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits `host[:port]` as it stands in a `Host` header or an authority (RFC 9110, RFC 3986).
///
/// # Errors
///
/// [`HostError`] of the host; a port that is no number from 1 to 65535 is [`HostError::Character`].
pub fn host_and_port(text: &str) -> Result<(Host, Option<u16>), HostError> {
    let split = match text.rfind(']') {
        Some(end) => text[end + 1..].find(':').map(|at| end + 1 + at),
        None => text.rfind(':'),
    };
    let Some(at) = split else {
        return Ok((Host::parse(text)?, None));
    };
    let (host, digits) = (&text[..at], &text[at + 1..]);
    // Without brackets a second colon makes it unclear where the host ends.
    if !host.starts_with('[') && host.contains(':') {
        return Err(HostError::Character(':'));
    }
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Character(':'));
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((Host::parse(host)?, Some(port))),
        _ => Err(HostError::Character(':')),
    }
}

/// What may stand in a name before conversion; underscores are refused in doubt (RFC 952).
fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.'
}

fn ipv6(text: &str) -> Result<Host, HostError> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(IpAddr::from(address).into()),
        Err(_) => Err(HostError::Address),
    }
}

/// The URL standard's "ends in a number": then it is an IPv4 address or nothing.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || number(last).is_some())
}

/// `inet_aton`: one to four numbers, the last one filling what the others leave.
fn ipv4(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) || *last >= 256_u64.pow(4 - leading.len() as u32) {
        return None;
    }
    let high = leading
        .iter()
        .enumerate()
        .map(|(at, part)| part << (24 - 8 * at))
        .sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

/// A number as C spells it: decimal, `0…` octal, `0x…` hexadecimal.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x") {
        (if hex.is_empty() { "0" } else { hex }, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
