//! One tiny package for each registry, made here: a wheel, a tarball of npm, a crate.

use std::io::Write as _;

use flate2::{Compression, Crc, write::GzEncoder};
use tar::{Builder, Header};

/// Its name in every registry.
pub(crate) const NAME: &str = "tiny-pack";
/// Its version in every registry.
pub(crate) const VERSION: &str = "1.0.0";
/// What each says when it is used.
const WORDS: &str = "tiny-pack says REACHED";

/// The name of the wheel's file (PEP 427).
pub(crate) const WHEEL: &str = "tiny_pack-1.0.0-py3-none-any.whl";

/// The wheel.
pub(crate) fn wheel() -> Vec<u8> {
    let info = "tiny_pack-1.0.0.dist-info";
    let metadata = format!("Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n");
    let files = [
        ("tiny_pack.py".to_owned(), format!("WORDS = '{WORDS}'\n")),
        (format!("{info}/METADATA"), metadata),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        // Digests may be left out, lines may not.
        (
            format!("{info}/RECORD"),
            format!("tiny_pack.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ),
    ];
    zip(&files)
}

/// The tarball that npm packs: everything in a directory `package`.
pub(crate) fn npm() -> Vec<u8> {
    let manifest = serde_json::json!({ "name": NAME, "version": VERSION, "main": "index.js" });
    tarball(&[
        ("package/package.json", manifest.to_string()),
        ("package/index.js", format!("module.exports = '{WORDS}';\n")),
    ])
}

/// The file that `cargo package` makes.
pub(crate) fn cargo() -> Vec<u8> {
    let manifest = format!("[package]\nname = \"{NAME}\"\nversion = \"{VERSION}\"\nedition = \"2021\"\n");
    tarball(&[
        ("tiny-pack-1.0.0/Cargo.toml", manifest),
        (
            "tiny-pack-1.0.0/src/lib.rs",
            format!("pub const WORDS: &str = \"{WORDS}\";\n"),
        ),
    ])
}

fn tarball(files: &[(&str, String)]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in files {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, text.as_bytes())
            .expect("memory can be written");
    }
    let mut bytes = builder.into_inner().expect("memory can be written");
    bytes.flush().expect("memory can be written");
    bytes.finish().expect("memory can be written")
}

/// A zip archive of stored files (APPNOTE.TXT 4.3), as small as one can be.
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let offset = number(bytes.len());
        let mut crc = Crc::new();
        crc.update(text.as_bytes());
        // Version 1.0, no flags, stored, the first moment of 1980.
        let mut common = vec![10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend([number(text.len()), number(text.len())].concat());
        common.extend(&number(name.len())[..2]);
        common.extend([0, 0]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02\x0a\x00");
        directory.extend(&common);
        // No comment, the first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset);
        directory.extend(name.as_bytes());
    }
    let (offset, count) = (number(bytes.len()), number(files.len()));
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend([&count[..2], &count[..2]].concat());
    bytes.extend([number(directory.len()), offset].concat());
    bytes.extend([0, 0]);
    bytes
}

fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("a tiny archive").to_le_bytes()
}
