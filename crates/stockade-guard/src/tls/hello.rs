//! What a ClientHello says beyond what rustls tells: whether it hides another one.

/// The extension "encrypted_client_hello" (RFC 9849).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const RECORD_HEADER: usize = 5;

/// What a ClientHello says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server it names; of an encrypted one the outer name.
    pub(crate) sni: Option<String>,
    /// Application protocols it offers, in its order.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// Whether it has an Encrypted ClientHello, or pretends to (GREASE): nobody but the server
    /// that has the key can tell which.
    pub(crate) ech: bool,
}

/// Whether a ClientHello in TLS records has an Encrypted ClientHello. Bytes that are no
/// ClientHello have none; whether they are one is for the TLS library to say.
pub(crate) fn has_ech(records: &[u8]) -> bool {
    extensions(&handshake(records)).is_some_and(|found| found.contains(&ENCRYPTED_CLIENT_HELLO))
}

/// The handshake bytes of the records at the front (RFC 8446 5.1).
fn handshake(mut records: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((header, rest)) = records.split_at_checked(RECORD_HEADER) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (body, after) = rest.split_at(length.min(rest.len()));
        bytes.extend_from_slice(body);
        records = after;
    }
    bytes
}

/// The types of the extensions of a ClientHello (RFC 8446 4.1.2); `None` where it ends early.
fn extensions(message: &[u8]) -> Option<Vec<u16>> {
    let mut rest = Rest(message);
    if rest.number(1)? != 1 {
        return None;
    }
    let length = rest.number(3)?;
    let mut hello = Rest(rest.take(length)?);
    hello.take(2 + 32)?;
    for size_of_length in [1, 2, 1] {
        // Session id, cipher suites, compression methods.
        let length = hello.number(size_of_length)?;
        hello.take(length)?;
    }
    let length = hello.number(2)?;
    let mut list = Rest(hello.take(length)?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let kind = list.number(2)?;
        let length = list.number(2)?;
        list.take(length)?;
        found.push(u16::try_from(kind).ok()?);
    }
    Some(found)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let digits = self.take(bytes)?;
        Some(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with these extensions, each with a byte in it.
    fn hello(kinds: &[u16]) -> Vec<u8> {
        let list: Vec<u8> = kinds
            .iter()
            .flat_map(|kind| [kind.to_be_bytes().as_slice(), &[0, 1, 7]].concat())
            .collect();
        let mut body = [3, 3].to_vec();
        body.extend([9; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    fn records(message: &[u8], piece: usize) -> Vec<u8> {
        message
            .chunks(piece)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1], length.as_slice(), part].concat()
            })
            .collect()
    }

    #[test]
    fn an_encrypted_hello_is_seen_in_any_records() {
        for piece in [1, 7, 4096] {
            assert!(has_ech(&records(&hello(&[0, 16, ENCRYPTED_CLIENT_HELLO]), piece)));
            assert!(!has_ech(&records(&hello(&[0, 16, 43]), piece)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            has_ech(&bytes);
            has_ech(&records(&bytes, 11));
        }

        #[test]
        fn a_hello_that_was_changed_or_cut_makes_it_not_fall_over(at in 0_usize..70, byte: u8, cut in 0_usize..90) {
            let mut bytes = records(&hello(&[0, ENCRYPTED_CLIENT_HELLO, 43]), 20);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            has_ech(&bytes);
        }
    }
}
