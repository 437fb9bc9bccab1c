//! ClientHellos as no library says them (RFC 8446, 4.1.2 and 5.1).

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

const RECORD: usize = 5;
/// The extension "server_name" (RFC 6066, 3).
pub(crate) const SERVER_NAME: u16 = 0;
/// The extension "encrypted_client_hello" (RFC 9849).
pub(crate) const ENCRYPTED: u16 = 0xfe0d;

/// A real ClientHello that names a server; of an address none is named.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let made = config.ok().and_then(|config| {
        let config = config
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).ok()?;
        let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).ok()?;
        Some(bytes)
    });
    made.unwrap_or_default()
}

/// The same in records of so many bytes.
pub(crate) fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let message = hello.get(RECORD..).unwrap_or_default();
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap_or(0).to_be_bytes();
        [&[22, 3, 1], &length[..], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

/// The extension that names a server, with these bytes as its name.
pub(crate) fn naming(name: &[u8]) -> Vec<u8> {
    let length = |n: usize| u16::try_from(n).unwrap_or(0).to_be_bytes();
    [&length(name.len() + 3)[..], &[0], &length(name.len()), name].concat()
}

/// The same with its extensions changed: types and contents.
pub(crate) fn changed(hello: &[u8], change: impl FnOnce(&mut Vec<(u16, Vec<u8>)>)) -> Vec<u8> {
    changed_if_sound(hello, change).unwrap_or_default()
}

fn changed_if_sound(hello: &[u8], change: impl FnOnce(&mut Vec<(u16, Vec<u8>)>)) -> Option<Vec<u8>> {
    // Record, handshake type and length, version, random.
    let mut at = RECORD + 4 + 2 + 32;
    let two = |at: usize| Some(usize::from(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?])));
    at += 1 + usize::from(*hello.get(at)?);
    at += 2 + two(at)?;
    at += 1 + usize::from(*hello.get(at)?);
    let (before, end) = (hello.get(RECORD + 4..at)?, at + 2 + two(at)?);
    at += 2;
    let mut list = Vec::new();
    while at < end {
        let (kind, length) = (u16::try_from(two(at)?).ok()?, two(at + 2)?);
        list.push((kind, hello.get(at + 4..at + 4 + length)?.to_vec()));
        at += 4 + length;
    }
    change(&mut list);
    let number = |n: usize| u16::try_from(n).unwrap_or(0).to_be_bytes();
    let extensions: Vec<u8> = list
        .iter()
        .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &number(data.len()), data].concat())
        .collect();
    let body = [before, &number(extensions.len()), &extensions].concat();
    let length = u32::try_from(body.len()).ok()?.to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    Some([&[22, 3, 1], &number(message.len())[..], &message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_was() {
        let bytes = hello("a.test");
        assert_eq!(changed(&bytes, |_| {}), bytes);
        assert_eq!(in_records(&bytes, 1 << 14), bytes);
        let mut names = Vec::new();
        changed(&bytes, |list| {
            names.extend(list.iter().filter(|(kind, _)| *kind == SERVER_NAME).cloned())
        });
        assert_eq!(names, [(SERVER_NAME, naming(b"a.test"))]);
    }
}
