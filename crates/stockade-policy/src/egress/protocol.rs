//! What is spoken, as far as the Guard can tell.

use stockade_domain::EgressProtocol;

/// Identification of Secure Shell (RFC 4253 4.2).
const SSH: &[u8] = b"SSH-2.0-";
/// PostgreSQL's version 3.0, SSLRequest, GSSENCRequest and CancelRequest, behind the length of
/// the first message (PostgreSQL documentation, "Message Formats").
const POSTGRES: [u32; 4] = [196_608, 80_877_103, 80_877_104, 80_877_102];
/// Longest first message of PostgreSQL that is believed to be one, in bytes.
const LONGEST_STARTUP: u32 = 10_000;

/// What a connection speaks, as far as the Guard can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS with a readable ClientHello.
    Tls,
    /// HTTP inside TLS that the Guard reads.
    Https,
    /// HTTP/1 in the clear.
    Http,
    /// Secure Shell.
    Ssh,
    /// PostgreSQL.
    Postgres,
    /// Anything else.
    Tcp,
    /// A name look-up.
    Dns,
}

impl Protocol {
    /// Everything a connection can be found to speak.
    pub const SPOKEN: [Self; 5] = [Self::Tls, Self::Http, Self::Ssh, Self::Postgres, Self::Tcp];

    /// The protocol as an action's `args.protocol` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Postgres => "postgres",
            Self::Tcp => "tcp",
            Self::Dns => "dns",
        }
    }

    /// Reads it back; what is not known is any bytes at all.
    pub(crate) fn of(text: Option<&str>) -> Self {
        [Self::Tls, Self::Https, Self::Http, Self::Ssh, Self::Postgres, Self::Dns]
            .into_iter()
            .find(|known| text == Some(known.as_str()))
            .unwrap_or(Self::Tcp)
    }

    /// What first bytes of a client speak that are neither TLS nor HTTP.
    pub fn of_first_bytes(bytes: &[u8]) -> Self {
        if bytes.starts_with(SSH) {
            return Self::Ssh;
        }
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        match (word(0), word(4)) {
            (Some(8..=LONGEST_STARTUP), Some(code)) if POSTGRES.contains(&code) => Self::Postgres,
            _ => Self::Tcp,
        }
    }

    /// Whether requests are in sight.
    pub(crate) const fn shows_requests(self) -> bool {
        matches!(self, Self::Https | Self::Http)
    }

    /// Whether speaking this is what a rule means by `named`.
    pub(crate) const fn is(self, named: EgressProtocol) -> bool {
        match named {
            EgressProtocol::Https | EgressProtocol::Tls => matches!(self, Self::Tls | Self::Https),
            EgressProtocol::Http => matches!(self, Self::Http),
            EgressProtocol::Ssh => matches!(self, Self::Ssh),
            EgressProtocol::Postgres => matches!(self, Self::Postgres),
            EgressProtocol::Tcp => !matches!(self, Self::Dns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn first_bytes_tell_ssh_and_postgres_from_the_rest() {
        assert_eq!(Protocol::of_first_bytes(b"SSH-2.0-OpenSSH_9.2\r\n"), Protocol::Ssh);
        assert_eq!(
            Protocol::of_first_bytes(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]),
            Protocol::Postgres
        );
        assert_eq!(
            Protocol::of_first_bytes(b"\0\0\0\x20\0\x03\0\0user\0me\0"),
            Protocol::Postgres
        );
        for other in [
            &b"SSH-1.5-x"[..],
            b"EHLO",
            b"",
            b"\0\0\0\x08",
            b"\0\0\0\x07\x04\xd2\x16\x2f",
            b"\xff\0\0\x08\x04\xd2\x16\x2f",
        ] {
            assert_eq!(Protocol::of_first_bytes(other), Protocol::Tcp, "{other:?}");
        }
    }

    #[test]
    fn a_spelling_is_read_back() {
        for protocol in Protocol::SPOKEN.into_iter().chain([Protocol::Https, Protocol::Dns]) {
            assert_eq!(Protocol::of(Some(protocol.as_str())), protocol);
        }
        assert_eq!(Protocol::of(Some("gopher")), Protocol::Tcp);
        assert_eq!(Protocol::of(None), Protocol::Tcp);
    }
}
