//! The images port: OCI images on this host's disk.

use std::sync::Arc;

use async_trait::async_trait;

use crate::sandbox::ImageTree;

/// Brings images to this host and keeps them. Asked by the runner before a sandbox is made.
#[async_trait]
pub trait Images: Send + Sync {
    /// Checks a reference without asking anybody: its syntax, and whether it must have a digest.
    ///
    /// # Errors
    ///
    /// [`ImageError::Reference`].
    fn check(&self, reference: &str) -> Result<(), ImageError>;

    /// Brings an image if it is not here, verified against its digest, and keeps it until the
    /// returned value is dropped. Concurrent calls for one image pull it once.
    async fn prepare(&self, reference: &str, progress: &dyn PullProgress) -> Result<Arc<ImageTree>, ImageError>;

    /// Removes what no sandbox uses and nobody asked for lately.
    async fn collect(&self) -> Result<Collected, ImageError>;
}

/// Hears how far a pull is. Called often; must not block.
pub trait PullProgress: Send + Sync {
    /// `step` is `resolve`, `download` or `unpack`; bytes of all layers together.
    fn at(&self, step: &'static str, done: u64, total: u64);
}

impl PullProgress for () {
    fn at(&self, _step: &'static str, _done: u64, _total: u64) {}
}

/// What garbage collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images.
    pub images: u64,
    /// Layers.
    pub layers: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference is wrong.
    #[error("image '{reference}': {why}")]
    Reference {
        /// As it was given.
        reference: String,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// The registry does not know it or does not let us have it.
    #[error("image '{reference}': the registry refused: {why}")]
    Refused {
        /// As it was given.
        reference: String,
        /// What it said.
        why: String,
    },
    /// The registry did not answer or broke off. May work later.
    #[error("image '{reference}': the registry does not answer: {why}")]
    Unavailable {
        /// As it was given.
        reference: String,
        /// What happened.
        why: String,
    },
    /// What came is not what the digest says, or would do harm when unpacked.
    #[error("image '{reference}' is not unpacked: {why}")]
    Unsafe {
        /// As it was given.
        reference: String,
        /// Which layer and entry, and why.
        why: String,
    },
    /// This host's disk.
    #[error("the image store: {0}")]
    Store(String),
}
