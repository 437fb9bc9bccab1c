//! Snapshots of the writable layer, seen from the host: a file named by its content.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use stockade_ports::sandbox::{SandboxError, Snapshot};
use tokio::time::timeout;

use super::{
    launch::wire::{ArchiveOrder, Report},
    zygote::{Nursery, Socket},
};
use crate::failure::{Failure, Step};

/// Longest an archive may take.
const LONGEST: Duration = Duration::from_secs(600);
const STEP: &str = "keep a snapshot";

/// What leads into a sandbox's files: the root of its writable layer and its user namespace.
///
/// Given back when the sandbox has ended: a descriptor would keep the layer's memory.
#[derive(Clone, Default)]
pub(crate) struct Inside(Arc<Mutex<Option<[OwnedFd; 2]>>>);

impl Inside {
    pub(crate) fn new(layer: OwnedFd, user: OwnedFd) -> Self {
        Self(Arc::new(Mutex::new(Some([layer, user]))))
    }

    /// Lets go of it.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn descriptors(&self) -> Result<[OwnedFd; 2], Failure> {
        let inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [layer, user] = inside
            .as_ref()
            .ok_or_else(|| Failure::new(STEP, "the sandbox has ended"))?;
        Ok([layer.try_clone().step(STEP)?, user.try_clone().step(STEP)?])
    }
}

/// Whether a path can be a snapshot, without reading it: the file's name is its digest. Absolute.
pub(crate) fn checked(path: &Path) -> Result<PathBuf, SandboxError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digest = name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if digest
        && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
        && let Ok(path) = std::path::absolute(path)
    {
        return Ok(path);
    }
    Err(SandboxError::Invalid(format!(
        "{} is not a snapshot: a snapshot is a file whose name is the SHA-256 of its content",
        path.display()
    )))
}

/// Archives the writable layer into `dir`. The sandbox stands still meanwhile.
pub(crate) async fn archive(nursery: &Nursery, inside: &Inside, dir: &Path) -> Result<Snapshot, SandboxError> {
    let kept = keep(nursery, inside, dir).await;
    kept.map_err(|failure| SandboxError::Inside {
        operation: "a snapshot".to_owned(),
        cause: format!("{}: {}", failure.step, failure.cause),
    })
}

async fn keep(nursery: &Nursery, inside: &Inside, dir: &Path) -> Result<Snapshot, Failure> {
    let (unfinished, file) = Unfinished::create(dir)?;
    let [layer, user] = inside.descriptors()?;
    let zygote = nursery.zygote().await?;
    let (line, theirs) = Socket::pair()?;
    let file = OwnedFd::from(file);
    let fds = [&theirs, &layer, &user, &file].map(AsRawFd::as_raw_fd);
    zygote
        .order_archive(&ArchiveOrder { archive: 1 }, &fds)
        .await
        .step(STEP)?;
    drop(theirs);
    let report = timeout(LONGEST, line.receive()).await;
    match report.map_err(|_| Failure::new(STEP, format!("not done within {} s", LONGEST.as_secs())))? {
        Ok(Some((Report::Archived, _))) => {}
        Ok(Some((Report::Failed(failure), _))) => return Err(failure),
        _ => return Err(Failure::new(STEP, "the archiver ended without a report")),
    }
    let dir = dir.to_owned();
    let named = tokio::task::spawn_blocking(move || unfinished.name(&dir)).await;
    named.step(STEP)?.step(STEP)
}

/// An archive without a name yet; removed unless it gets one.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Unfinished {
    fn create(dir: &Path) -> Result<(Self, File), Failure> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".new-{}-{serial}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.step(format!("make a file in {}", dir.display()))?;
        Ok((Self(path), file))
    }

    /// Gives it the name of its content.
    fn name(self, dir: &Path) -> io::Result<Snapshot> {
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut File::open(&self.0)?, &mut HashWriter(&mut hash))?;
        let hex = hex::encode(hash.finalize());
        // The archiver has flushed the content; the name must last as well.
        fs::rename(&self.0, dir.join(&hex))?;
        File::open(dir)?.sync_all()?;
        let digest = format!("sha256:{hex}");
        Ok(Snapshot { digest, bytes })
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
