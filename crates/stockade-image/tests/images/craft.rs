//! Images made by hand, good ones and bad ones.

use std::{io::Write, path::Path, sync::Arc};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stockade_image::{ImageConfig, ImageStore};
use stockade_ports::{ImageError, Images, sandbox::ImageTree};

use crate::server::Server;

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar stream, written block by block: the tar crate would not write what an enemy does.
#[derive(Default, Clone)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(mut self, name: &str, kind: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).expect("ustar");
        header.set_device_minor(3).expect("ustar");
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, b'0', 0o644, "", content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', 0o755, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, b"")
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn tar(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

#[derive(Clone, Copy)]
pub(crate) enum As {
    Tar,
    Gzip,
    Zstd,
    DockerGzip,
}

impl As {
    pub(crate) fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Tar => tar.to_vec(),
            Self::Zstd => zstd::encode_all(tar, 3).expect("zstd"),
            Self::Gzip | Self::DockerGzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).expect("gzip");
                encoder.finish().expect("gzip")
            }
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::DockerGzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image on its way to a registry.
pub(crate) struct Image {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    pub(crate) media_type: &'static str,
}

impl Image {
    pub(crate) fn of(layers: Vec<(Layer, As)>) -> Self {
        let tars: Vec<_> = layers.into_iter().map(|(layer, how)| (layer.tar(), how)).collect();
        let ids: Vec<_> = tars.iter().map(|(tar, _)| digest(tar)).collect();
        let blobs: Vec<_> = tars.iter().map(|(tar, how)| how.pack(tar)).collect();
        let descriptors = blobs
            .iter()
            .zip(&tars)
            .map(|(blob, (_, how))| json!({"mediaType": how.media_type(), "digest": digest(blob), "size": blob.len()}));
        let arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        Self {
            manifest: json!({"schemaVersion": 2, "mediaType": OCI, "layers": descriptors.collect::<Vec<_>>()}),
            config: json!({"os": "linux", "architecture": arch, "config": {"Env": ["COLOUR=blue"]},
                "rootfs": {"type": "layers", "diff_ids": ids}}),
            blobs,
            media_type: OCI,
        }
    }

    pub(crate) fn gzip(layer: Layer) -> Self {
        Self::of(vec![(layer, As::Gzip)])
    }

    /// Pushes it as it is, wrong or right; the reference with the manifest's digest.
    pub(crate) async fn push(mut self, server: &Server, name: &str) -> String {
        let config = self.config.to_string().into_bytes();
        if self.manifest.get("config").is_none() {
            let kind = "application/vnd.oci.image.config.v1+json";
            self.manifest["config"] = json!({"mediaType": kind, "digest": digest(&config), "size": config.len()});
        }
        let mut blobs = self.blobs;
        blobs.push(config);
        let manifest = self.manifest.to_string().into_bytes();
        push(server, name, blobs, manifest, self.media_type).await
    }
}

/// Pushes blobs and a manifest under the tag `1`.
pub(crate) async fn push(
    server: &Server,
    name: &str,
    blobs: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    kind: &'static str,
) -> String {
    let reference: Reference = format!("{}:1", server.name(name)).parse().expect("reference");
    let client = pusher();
    client
        .store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous)
        .await;
    for blob in blobs {
        let digest = digest(&blob);
        client.push_blob(&reference, blob, &digest).await.expect("pushed");
    }
    let pinned = format!("{}@{}", server.name(name), digest(&manifest));
    let kind = kind.parse().expect("media type");
    client
        .push_manifest_raw(&reference, manifest, kind)
        .await
        .expect("pushed");
    pinned
}

fn pusher() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        use_monolithic_push: true,
        ..ClientConfig::default()
    })
}

/// A store in a directory of its own.
pub(crate) struct Store {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<ImageStore>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut ImageConfig)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Arc::new(open(dir.path(), change));
        Self { dir, store }
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result<Arc<ImageTree>, ImageError> {
        self.store.prepare(reference, &()).await
    }

    pub(crate) fn path(&self, rest: &str) -> std::path::PathBuf {
        self.dir.path().join(rest)
    }

    /// Entries of one of the store's directories.
    pub(crate) fn count(&self, dir: &str) -> usize {
        std::fs::read_dir(self.path(dir)).map_or(0, Iterator::count)
    }
}

pub(crate) fn open(dir: &Path, change: impl FnOnce(&mut ImageConfig)) -> ImageStore {
    let mut config = ImageConfig::new(dir.to_owned());
    config.keep = std::time::Duration::ZERO;
    change(&mut config);
    ImageStore::new(config)
}

/// What was unpacked of an image with one layer.
pub(crate) fn tree(image: &ImageTree) -> std::path::PathBuf {
    assert_eq!(image.layers.len(), 1);
    image.layers[0].clone()
}
