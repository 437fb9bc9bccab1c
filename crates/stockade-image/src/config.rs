//! Settings of the image store.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Settings of the image store.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// Where images are kept. Made with mode 0700 when it is missing. Its file system must keep
    /// user attributes (ext4, xfs, btrfs; tmpfs from Linux 6.6).
    pub dir: PathBuf,
    /// Refuse references without a digest: what runs is then what was reviewed.
    pub require_digest: bool,
    /// Credentials by registry as references spell it: `host` or `host:port`, and `docker.io`.
    pub credentials: BTreeMap<String, Credential>,
    /// Registries spoken to without TLS, as `host` or `host:port`. Loopback always is; any other
    /// sends credentials and images in the clear.
    pub plain_http: Vec<String>,
    /// Further certificate authorities, each a PEM file's content.
    pub authorities: Vec<Vec<u8>>,
    /// How much an image may ask for.
    pub limits: ImageLimits,
    /// How long what nobody uses is kept after its last use.
    pub keep: Duration,
    /// Longest a registry may be silent.
    pub silence: Duration,
    /// Longest a pull may take.
    pub deadline: Duration,
}

impl ImageConfig {
    /// The defaults, in a directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            require_digest: false,
            credentials: BTreeMap::new(),
            plain_http: Vec::new(),
            authorities: Vec::new(),
            limits: ImageLimits::default(),
            keep: Duration::from_secs(7 * 24 * 3600),
            silence: Duration::from_secs(30),
            deadline: Duration::from_secs(30 * 60),
        }
    }
}

/// How this installation names itself to a registry.
#[derive(Debug, Clone)]
pub enum Credential {
    /// User and password, also for registries that give out tokens for them.
    Password {
        /// The user.
        user: String,
        /// Its password or access token.
        password: SecretString,
    },
    /// A ready bearer token.
    Token(SecretString),
}

/// How much an image may ask for. More is refused.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// Compressed bytes of all layers.
    pub download_bytes: u64,
    /// Uncompressed bytes of all layers.
    pub image_bytes: u64,
    /// Uncompressed bytes for each compressed one, once 64 MiB came out of a layer.
    pub ratio: u64,
    /// Files, directories and links in one layer.
    pub entries: u64,
    /// Directories above a file.
    pub depth: usize,
    /// Layers.
    pub layers: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            download_bytes: 10 << 30,
            image_bytes: 20 << 30,
            ratio: 200,
            entries: 1_000_000,
            depth: 128,
            // Docker's own limit; overlayfs takes 500.
            layers: 127,
        }
    }
}
