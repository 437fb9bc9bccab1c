//! Manifests, indexes and configurations: OCI image specification 1.1 and Docker's image manifest
//! version 2, schema 2, which differ in media types only.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{config::ImageLimits, fault::Fault, places::Digest};

/// Media types of what a reference may name.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Largest manifest and configuration in bytes; the specification asks for 4 MiB at least.
pub(crate) const MAX_JSON: usize = 4 << 20;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One layer as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Digest of the blob.
    pub(crate) blob: Digest,
    /// Size of the blob.
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    /// Digest of the tar stream in it.
    pub(crate) diff_id: Digest,
}

/// What a reference named.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Image(Manifest),
    /// An index; the manifest for this platform.
    Index(Digest),
}

/// A manifest that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Digest,
    pub(crate) config_size: u64,
    /// Blob, size and compression, the lowest first.
    layers: Vec<(Digest, u64, Compression)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// This host's architecture as images spell it (Go's `GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn wrong(why: impl Into<String>) -> Fault {
    Fault::Unsafe(why.into())
}

/// Understands what a registry gave for a reference.
pub(crate) fn read(bytes: &[u8], limits: &ImageLimits) -> Result<Found, Fault> {
    if bytes.len() > MAX_JSON {
        return Err(wrong(format!("its manifest is larger than {MAX_JSON} bytes")));
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|e| wrong(format!("its manifest cannot be read: {e}")))?;
    if document.schema_version != 2 {
        let version = document.schema_version;
        return Err(wrong(format!(
            "its manifest has schema version {version}; only 2 is known, push it again"
        )));
    }
    // A document that can be read both ways is somebody's attempt to show two images under one
    // digest (CVE-2021-41190).
    match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) => {
            expect_type(document.media_type.as_deref(), &[OCI_INDEX, DOCKER_INDEX])?;
            choose(&manifests).map(Found::Index)
        }
        (None, Some(config), Some(layers)) => {
            expect_type(document.media_type.as_deref(), &[OCI_MANIFEST, DOCKER_MANIFEST])?;
            image(&config, &layers, limits).map(Found::Image)
        }
        _ => Err(wrong("its manifest is neither an image nor an index")),
    }
}

fn expect_type(found: Option<&str>, known: &[&str]) -> Result<(), Fault> {
    match found {
        // OCI leaves it out at times.
        None => Ok(()),
        Some(found) if known.contains(&found) => Ok(()),
        Some(found) => Err(wrong(format!("its manifest calls itself '{}'", found.escape_default()))),
    }
}

fn choose(manifests: &[Descriptor]) -> Result<Digest, Fault> {
    let ours = |d: &&Descriptor| {
        let platform = d.platform.as_ref();
        platform.is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    };
    match manifests.iter().find(ours) {
        Some(descriptor) => descriptor.digest.parse().map_err(wrong),
        None => {
            let platforms: BTreeSet<_> = manifests
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .collect::<Vec<_>>()
                .iter()
                .map(|p| format!("{}/{}", p.os.escape_default(), p.architecture.escape_default()))
                .collect();
            let platforms: Vec<_> = platforms.into_iter().take(20).collect();
            Err(Fault::Refused(format!(
                "it has no image for linux/{}, only for {}",
                architecture(),
                platforms.join(", ")
            )))
        }
    }
}

fn image(config: &Descriptor, layers: &[Descriptor], limits: &ImageLimits) -> Result<Manifest, Fault> {
    if layers.is_empty() {
        return Err(wrong("it has no layers"));
    }
    if layers.len() > limits.layers {
        return Err(wrong(format!(
            "it has {} layers, more than {}",
            layers.len(),
            limits.layers
        )));
    }
    if config.size > MAX_JSON as u64 {
        return Err(wrong(format!("its configuration is larger than {MAX_JSON} bytes")));
    }
    let total = layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.size));
    if total.is_none_or(|total| total > limits.download_bytes) {
        return Err(wrong(format!(
            "its layers are larger than {} bytes",
            limits.download_bytes
        )));
    }
    let read = |layer: &Descriptor| {
        let blob = layer.digest.parse().map_err(wrong)?;
        Ok((blob, layer.size, compression(&layer.media_type)?))
    };
    Ok(Manifest {
        config: config.digest.parse().map_err(wrong)?,
        config_size: config.size,
        layers: layers.iter().map(read).collect::<Result<_, Fault>>()?,
    })
}

/// Layers "not for distribution" are layers as any other when the registry has them. The other
/// addresses a manifest may name for them are never asked.
fn compression(media_type: &str) -> Result<Compression, Fault> {
    Ok(match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => {
            let other = other.escape_default();
            return Err(wrong(format!(
                "a layer of type '{other}', which is not a file system for Linux"
            )));
        }
    })
}

#[derive(Deserialize)]
struct Configuration {
    architecture: String,
    os: String,
    rootfs: RootFs,
    config: Option<Execution>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    env: Option<Vec<String>>,
}

/// What an image is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The lowest first, as the manifest has them.
    pub(crate) layers: Vec<Layer>,
    pub(crate) env: Vec<(String, String)>,
}

impl Manifest {
    /// Puts the configuration beside the manifest.
    pub(crate) fn with_configuration(self, bytes: &[u8]) -> Result<Plan, Fault> {
        let read: Configuration =
            serde_json::from_slice(bytes).map_err(|e| wrong(format!("its configuration cannot be read: {e}")))?;
        if (read.os.as_str(), read.architecture.as_str()) != ("linux", architecture()) {
            let (os, arch) = (read.os.escape_default(), read.architecture.escape_default());
            return Err(Fault::Refused(format!(
                "it is for {os}/{arch}, this host is linux/{}",
                architecture()
            )));
        }
        let ids = read.rootfs.diff_ids;
        if ids.len() != self.layers.len() {
            let (layers, ids) = (self.layers.len(), ids.len());
            return Err(wrong(format!(
                "its manifest has {layers} layers and its configuration {ids}"
            )));
        }
        let layers = self.layers.into_iter().zip(ids).map(|((blob, size, compression), id)| {
            Ok(Layer {
                blob,
                size,
                compression,
                diff_id: id.parse().map_err(wrong)?,
            })
        });
        let env = read.config.and_then(|c| c.env).unwrap_or_default();
        Ok(Plan {
            layers: layers.collect::<Result<_, Fault>>()?,
            env: env.iter().filter_map(|pair| variable(pair)).collect(),
        })
    }
}

/// `NAME=value`. What no process could have in its environment is left out.
fn variable(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let fine = !name.is_empty() && !pair.contains('\0');
    fine.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
