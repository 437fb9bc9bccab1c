//! What programs inside a sandbox have to believe: the web's authorities and the run's own.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls::pki_types::CertificateDer;
use stockade_ports::Trust;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::Authority;

/// The first bytes of a Java key store and its version.
const JKS: [u8; 8] = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
/// An entry that is a trusted certificate.
const TRUSTED: u32 = 2;
/// What the format mixes into its checksum.
const SALT: &[u8] = b"Mighty Aphrodite";
/// The password everybody uses for stores without secrets.
const PASSWORD: &str = "changeit";

pub(super) fn trust(authority: &Authority) -> Trust {
    let own = authority.pem();
    let mut bundle: String = TLS_SERVER_ROOT_CERTS.iter().map(pem).collect();
    bundle.push_str(&own);
    let all: Vec<_> = TLS_SERVER_ROOT_CERTS.iter().chain([authority.certificate()]).collect();
    Trust {
        authority: own,
        bundle,
        subject_hash: authority.subject_hash(),
        java: key_store(&all),
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// A Java key store ("JKS", version 2) of trusted certificates. There is no secret in it; the
/// checksum is part of the format and protects nothing.
fn key_store(certificates: &[&CertificateDer<'_>]) -> Vec<u8> {
    let mut store = JKS.to_vec();
    store.extend(number(certificates.len()));
    for (place, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        store.extend(text(&format!("stockade-{place}")));
        // The time it was added, which nobody reads.
        store.extend([0; 8]);
        store.extend(text("X.509"));
        store.extend(number(certificate.len()));
        store.extend_from_slice(certificate);
    }
    let mut checksum = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        checksum.update(&unit.to_be_bytes());
    }
    checksum.update(SALT);
    checksum.update(&store);
    store.extend_from_slice(checksum.finish().as_ref());
    store
}

fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

/// A text as Java's `DataOutput.writeUTF` has it, for ASCII.
fn text(value: &str) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length, value.as_bytes()].concat()
}
