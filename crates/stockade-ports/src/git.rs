//! Looking into a push before it goes on.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::{Failure, ObjectId, RefUpdate};
use stockade_policy::git::PushFacts;

/// The bytes of a packfile (gitformat-pack(5)), as the client sent them.
#[derive(Debug, Clone)]
pub enum PackBytes {
    /// None: every reference is removed.
    None,
    /// In memory.
    Memory(Bytes),
    /// In a file that stays as long as the push is being handled.
    File(PathBuf),
}

/// A push as it was read, its pack not yet believed.
#[derive(Debug, Clone)]
pub struct PushToInspect {
    /// What moves.
    pub updates: Vec<RefUpdate>,
    /// Objects the server said it has, from its own list of references. Commits reachable from
    /// them are not the push's; objects that are not known here are left out.
    pub remote: Vec<ObjectId>,
    /// The pack.
    pub pack: PackBytes,
    /// Largest pack, in bytes.
    pub max_pack_bytes: u64,
    /// Most commits that are looked into; more are counted one beyond and not read.
    pub max_commits: u32,
}

/// Reads packs on the host, against the run's pristine base. Implemented by the runner.
#[async_trait]
pub trait PushInspector: Send + Sync {
    /// Says what a push would do. Objects of the pack are kept apart, and forgotten when the
    /// answer is dropped or the future is.
    ///
    /// # Errors
    ///
    /// [`Failure`] with a message fit for the client: the pack is broken, too large or not
    /// complete, or the host's git failed. The push must then be refused.
    async fn inspect(&self, push: PushToInspect) -> Result<Inspected, Failure>;

    /// The server took the push: later pushes may build on its objects.
    async fn delivered(&self, push: Inspected);
}

/// What the Guard needs on the host to let git through for one run.
#[derive(Clone)]
pub struct GitPlace {
    /// Who looks into pushes.
    pub inspector: Arc<dyn PushInspector>,
    /// An existing directory that only this process may read, for packs that do not fit in memory.
    pub spool_dir: PathBuf,
}

/// An inspected push.
#[derive(Debug)]
pub struct Inspected {
    /// What it would do.
    pub facts: PushFacts,
    /// Where its objects are kept apart; the inspector's own.
    pub quarantine: Quarantine,
}

/// A directory that goes when this value goes.
#[derive(Debug)]
pub struct Quarantine(PathBuf);

impl Quarantine {
    /// Takes charge of a directory.
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        // What cannot be removed now goes with the run's directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
