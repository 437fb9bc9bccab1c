//! Where things are in the store, and what is written down about them.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A SHA-256 in hexadecimal, 64 lower-case digits: safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }

    pub(crate) fn finished(hash: sha2::Sha256) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(hash.finalize()))
    }

    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:");
        let fine = |d: &&str| d.len() == 64 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match digits.filter(fine) {
            Some(digits) => Ok(Self(digits.to_owned())),
            None => Err(format!(
                "'{}' is not a digest of the form sha256: and 64 lower-case hexadecimal digits",
                text.escape_default()
            )),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// What `images/sha256/<digest>.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// A manifest.
    Image {
        /// Diff ids of the layers, the uppermost first; hidden and repeated ones left out.
        layers: Vec<Digest>,
        /// The environment it asks for.
        env: Vec<(String, String)>,
    },
    /// An index, and its manifest for this platform.
    Index {
        /// Digest of the manifest.
        manifest: Digest,
    },
}

/// What `layers/sha256/<digest>/info.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerInfo {
    /// Bytes of the tar stream.
    pub(crate) bytes: u64,
    /// Entries of the tar stream.
    pub(crate) entries: u64,
    /// Hides every layer below it.
    pub(crate) opaque: bool,
}

/// The store's directory.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    dir: PathBuf,
}

impl Places {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes what is missing. Nobody else on this host may look into an image.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let subdirectories = [self.images(), self.layers(), self.downloads(), self.tmp(), self.locks()];
        for dir in subdirectories {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.dir.join("images/sha256")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.dir.join("layers/sha256")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.dir.join("downloads")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.dir.join("locks")
    }

    pub(crate) fn image(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", digest.hex()))
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub(crate) fn tree(&self, diff_id: &Digest) -> PathBuf {
        self.layer(diff_id).join("tree")
    }

    pub(crate) fn unfinished(&self, diff_id: &Digest) -> PathBuf {
        self.tmp().join(diff_id.hex())
    }

    /// A compressed layer on its way. Guarded by the layer's lock, so it is named after both.
    pub(crate) fn download(&self, diff_id: &Digest, blob: &Digest) -> PathBuf {
        self.downloads().join(format!("{}-{}", diff_id.hex(), blob.hex()))
    }

    pub(crate) fn image_lock(&self, digest: &Digest) -> PathBuf {
        self.locks().join(format!("image-{}", digest.hex()))
    }

    pub(crate) fn layer_lock(&self, diff_id: &Digest) -> PathBuf {
        self.locks().join(format!("layer-{}", diff_id.hex()))
    }

    /// What is written down about an image or index; `None` when it is not here or not whole.
    pub(crate) fn record(&self, digest: &Digest) -> Option<Record> {
        read_json(&self.image(digest))
    }

    pub(crate) fn layer_info(&self, diff_id: &Digest) -> Option<LayerInfo> {
        read_json(&self.layer(diff_id).join("info.json"))
    }

    /// Writes a record whole or not at all.
    pub(crate) fn write_record(&self, digest: &Digest, record: &Record) -> io::Result<()> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let (pid, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        // Two writers of one name write the same.
        let unfinished = self.tmp().join(format!("record-{}-{pid}-{serial}", digest.hex()));
        write_json(&unfinished, record)?;
        fs::rename(&unfinished, self.image(digest))?;
        File::open(self.images())?.sync_all()
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_sha256_digests() {
        let digits = "0123456789abcdef".repeat(4);
        let digest: Digest = format!("sha256:{digits}").parse().expect("fine");
        assert_eq!(digest.to_string(), format!("sha256:{digits}"));
        for wrong in [
            digits.clone(),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha512:{digits}"),
            format!("sha256:../../{}", &digits[6..]),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
