//! What OpenSSL calls a certificate in a directory of certificates: a hash of its subject.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// `id-at-commonName` (X.520), encoded.
pub(super) const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
/// `id-at-organizationName`, encoded.
pub(super) const ORGANIZATION_NAME: [u8; 3] = [0x55, 4, 10];

const OBJECT_IDENTIFIER: u8 = 6;
const UTF8_STRING: u8 = 12;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The hash of a name of these parts in order, as X509_NAME_hash(3) has it: the first four bytes
/// of SHA-1, the lowest first, over the parts' encodings with their text in lower case. Texts are
/// ASCII without spaces at their ends or two in a row.
pub(super) fn subject_hash(parts: &[([u8; 3], &str)]) -> String {
    let encoded: Vec<u8> = parts
        .iter()
        .flat_map(|(kind, text)| {
            let text = text.to_ascii_lowercase();
            let pair = [value(OBJECT_IDENTIFIER, kind), value(UTF8_STRING, text.as_bytes())].concat();
            value(SET, &value(SEQUENCE, &pair))
        })
        .collect();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &encoded);
    hash.as_ref()[..4]
        .iter()
        .rev()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A value in DER (X.690) of at most 127 bytes, which is what names of this program have.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    debug_assert!(length < 128, "a long name needs a long length");
    [&[tag, length], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_openssl_says() {
        // openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -subj SUBJECT | openssl x509 -noout -subject_hash
        let run = "Stockade run run_01";
        let hash = subject_hash(&[(ORGANIZATION_NAME, "Stockade"), (COMMON_NAME, run)]);
        assert_eq!(hash, "c5a739a9");
        assert_eq!(subject_hash(&[(COMMON_NAME, "a")]), "20b69a40");
    }
}
