//! Files inside a sandbox, with the rights of the agent's user and nobody else's.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::SandboxError;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path inside.
    pub path: String,
    /// What it is. Links are not followed.
    pub kind: EntryKind,
    /// Size in bytes; of a directory whatever its file system says.
    pub size: u64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Last change of the content, in milliseconds after the epoch.
    pub modified_ms: i64,
    /// Where a symbolic link points, as it is written there.
    pub target: Option<String>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// Entries of a directory, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether there are more than were asked for.
    pub truncated: bool,
}

/// Something changed below a watched path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path inside.
    pub path: String,
    /// `created`, `modified`, `removed`, `moved`, or `lost` when changes came faster than they
    /// could be told; the path is then the watched one.
    pub what: &'static str,
}

/// A watched directory. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watched {
    /// Changes in the order the kernel told them.
    pub changes: mpsc::Receiver<Change>,
}

/// A file on its way out of the sandbox. Dropping it ends the transfer.
#[derive(Debug)]
pub struct Download {
    /// Pieces of the file in order; an error is the last item. The channel closes after the
    /// last byte.
    pub pieces: mpsc::Receiver<Result<Bytes, SandboxError>>,
}

/// A file on its way into the sandbox: written beside its place, put there whole by
/// [`Upload::finish`]. Dropping it leaves the place as it was.
#[derive(Debug)]
pub struct Upload {
    pieces: mpsc::Sender<Option<Bytes>>,
    done: oneshot::Receiver<Result<(), SandboxError>>,
}

impl Upload {
    /// An upload and the backend's ends of it: the pieces (`None` is the end of the file; a
    /// closed channel without it means give up) and where to tell the result.
    #[must_use]
    #[allow(clippy::type_complexity)]
    pub fn channel() -> (
        Self,
        mpsc::Receiver<Option<Bytes>>,
        oneshot::Sender<Result<(), SandboxError>>,
    ) {
        let (pieces, incoming) = mpsc::channel(16);
        let (tell, done) = oneshot::channel();
        (Self { pieces, done }, incoming, tell)
    }

    /// Adds bytes. `false` when the sandbox has refused already; [`Upload::finish`] says why.
    pub async fn write(&self, bytes: Bytes) -> bool {
        self.pieces.send(Some(bytes)).await.is_ok()
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    ///
    /// Whatever stopped the transfer; the place is then as it was.
    pub async fn finish(self) -> Result<(), SandboxError> {
        let _ = self.pieces.send(None).await;
        let gone = || Err(SandboxError::Gone("it ended during an upload".to_owned()));
        self.done.await.unwrap_or_else(|_| gone())
    }
}
