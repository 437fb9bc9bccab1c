//! Locks that end with their holder: `flock(2)` on a file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

/// How often a waiter looks again. The kernel's own waiting would hold a thread and could not be
/// given up.
const AGAIN: Duration = Duration::from_millis(20);

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// In use: many may.
    Shared,
    /// Being made or removed: nobody else may.
    Exclusive,
}

impl Lock {
    /// Takes a lock if it is free.
    pub(crate) fn try_take(path: &Path, sharing: Sharing) -> io::Result<Option<Self>> {
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(path)?;
            let taken = match sharing {
                Sharing::Shared => file.try_lock_shared(),
                Sharing::Exclusive => file.try_lock(),
            };
            match taken {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever removes a lock file holds it. If that was between our two steps, the lock
            // is on a file nobody finds any more.
            let now = std::fs::metadata(path);
            if now.is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino())) {
                return Ok(Some(Self { _file: file }));
            }
        }
    }

    /// Waits for a lock.
    pub(crate) async fn take(path: &Path, sharing: Sharing) -> io::Result<Self> {
        loop {
            if let Some(lock) = Self::try_take(path, sharing)? {
                return Ok(lock);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_locks_keep_the_exclusive_one_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("lock");
        let take = |sharing| Lock::try_take(&path, sharing).expect("works");
        let first = take(Sharing::Shared).expect("free");
        let second = take(Sharing::Shared).expect("shared");
        assert!(take(Sharing::Exclusive).is_none());
        drop((first, second));
        let alone = take(Sharing::Exclusive).expect("free again");
        assert!(take(Sharing::Shared).is_none());
        std::fs::remove_file(&path).expect("removed");
        drop(alone);
        // The removed file's lock does not count for the new one.
        assert!(take(Sharing::Exclusive).is_some());
    }
}
