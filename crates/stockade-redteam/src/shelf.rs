//! A registry on the loopback with images an attacker made (OCI Distribution Specification 1.1, pull
//! only). What it has can be asked for by digest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{RedTeamError, prepare};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Longest head of a request.
const HEAD: usize = 16 << 10;

/// A layer as an attacker writes it, block by block: a proper library would refuse to.
#[derive(Default)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    fn entry(self, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_old_mut();
        // Longer ones are cut, as the format has it.
        let fit = |field: &mut [u8; 100], text: &str| {
            let length = text.len().min(100);
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        };
        fit(&mut fields.name, name);
        fit(&mut fields.linkname, link);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.push(header.as_bytes(), content)
    }

    fn push(mut self, header: &[u8; 512], content: &[u8]) -> Self {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(name, b'0', mode, "", content)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', 0o755, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, b"")
    }

    /// A character or block device.
    pub(crate) fn device(self, name: &str, kind: u8, major: u32, minor: u32) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o666);
        header.set_size(0);
        // Both fit into their octal fields.
        let _ = header
            .set_device_major(major)
            .and_then(|()| header.set_device_minor(minor));
        header.set_cksum();
        self.push(header.as_bytes(), b"")
    }

    /// An extended attribute of the entry that follows (pax: `SCHILY.xattr.`).
    pub(crate) fn attribute(self, name: &str, value: &[u8]) -> Self {
        let tail = [b" SCHILY.xattr.", name.as_bytes(), b"=", value, b"\n"].concat();
        // The length counts itself.
        let mut length = tail.len() + 1;
        while length != tail.len() + length.to_string().len() {
            length = tail.len() + length.to_string().len();
        }
        let record = [length.to_string().as_bytes(), &tail].concat();
        self.entry("pax", b'x', 0o644, "", &record)
    }
}

/// The registry. Ends when it is dropped.
pub(crate) struct Shelf {
    port: u16,
    things: Arc<Things>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Things(Mutex<BTreeMap<String, (&'static str, Bytes)>>);

impl Things {
    fn put(&self, kind: &'static str, content: Vec<u8>) -> (String, usize) {
        let name = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let length = content.len();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.clone(), (kind, content.into()));
        (name, length)
    }

    fn get(&self, name: &str) -> Option<(&'static str, Bytes)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Shelf {
    pub(crate) async fn open() -> Result<Self, RedTeamError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(prepare("a registry"))?;
        let port = listener.local_addr().map_err(prepare("a registry"))?.port();
        let things = Arc::new(Things::default());
        let shared = Arc::clone(&things);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever asks badly is not answered.
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, things, server })
    }

    /// Puts an image of one layer on it; the reference.
    pub(crate) fn put(&self, layer: Layer) -> String {
        let mut tar = layer.0;
        tar.extend_from_slice(&[0; 1024]);
        let (layer, length) = self.things.put(LAYER, tar);
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer] },
        });
        let (config, config_length) = self.things.put(CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": config, "size": config_length },
            "layers": [{ "mediaType": LAYER, "digest": layer, "size": length }],
        });
        let (manifest, _) = self.things.put(MANIFEST, manifest.to_string().into_bytes());
        format!("127.0.0.1:{}/attack@{manifest}", self.port)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mut stream: TcpStream, things: Arc<Things>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buffer = [0; 2048];
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) if head.len() < HEAD => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = match path.rsplit('/').next() {
        Some("") => Some(("application/json", "", Bytes::from_static(b"{}"))),
        Some(name) => things.get(name).map(|(kind, content)| (kind, name, content)),
        None => None,
    };
    let (status, (kind, digest, content)) = match found {
        Some(found) => ("200 OK", found),
        None => (
            "404 Not Found",
            ("application/json", "", Bytes::from_static(b"{\"errors\":[]}")),
        ),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n",
        content.len()
    );
    if !digest.is_empty() {
        answer.push_str(&format!("Docker-Content-Digest: {digest}\r\n"));
    }
    answer.push_str("\r\n");
    let mut answer = answer.into_bytes();
    if method != "HEAD" {
        answer.extend_from_slice(&content);
    }
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let layer = Layer::default()
            .attribute("security.capability", &[1, 0, 2])
            .file("a", 0o4755, b"content")
            .symlink("b", "/etc")
            .device("c", b'3', 1, 1);
        let mut archive = tar::Archive::new(&layer.0[..]);
        let mut entries = archive.entries().unwrap();
        let mut first = entries.next().unwrap().unwrap();
        assert_eq!(first.header().mode().unwrap(), 0o4755);
        let attributes = first.pax_extensions().unwrap().unwrap();
        let attribute = attributes.flatten().next().unwrap();
        assert_eq!(attribute.key().unwrap(), "SCHILY.xattr.security.capability");
        assert_eq!(attribute.value_bytes(), [1, 0, 2]);
        let kinds: Vec<_> = entries
            .map(|entry| entry.unwrap().header().entry_type().as_byte())
            .collect();
        assert_eq!(kinds, [b'2', b'3']);
    }
}
