//! Files in and out, with the rights of the agent's user and nobody else's.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use stockade_guest_proto::{FailureKind, FrameKind, FromGuest};

use crate::{conn::Conn, sys};

const CHUNK: usize = 32 * 1024;

type Failure = (FailureKind, String);

fn failure(path: &Path, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FailureKind::NotFound,
        Some(libc::ENOSPC | libc::EDQUOT) => FailureKind::DiskFull,
        _ => FailureKind::Other,
    };
    (kind, format!("{}: {error}", path.display()))
}

fn absolute(path: &str) -> Result<PathBuf, Failure> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(PathBuf::from(path))
    } else {
        let why = format!("{path:?} is not an absolute path");
        Err((FailureKind::Invalid, why))
    }
}

/// A file on its way to the host.
pub(crate) struct ReadJob {
    path: PathBuf,
    file: File,
    left: u64,
}

impl ReadJob {
    pub(crate) fn start(path: &str, limit: u64) -> Result<Self, Failure> {
        let path = absolute(path)?;
        // O_NONBLOCK: a FIFO must not stop pid 1.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&path)
            .map_err(|e| failure(&path, &e))?;
        let meta = file.metadata().map_err(|e| failure(&path, &e))?;
        if !meta.is_file() {
            let why = format!("{} is not a regular file", path.display());
            return Err((FailureKind::Invalid, why));
        }
        // In /proc the Guest would see itself, which is closed to everybody else.
        if sys::is_procfs(file.as_fd()).map_err(|e| failure(&path, &e))? {
            let why = format!("{} is not a stored file", path.display());
            return Err((FailureKind::Invalid, why));
        }
        if meta.len() > limit {
            return Err(too_large(&path));
        }
        Ok(Self {
            path,
            file,
            left: limit,
        })
    }

    /// Sends the next piece; `true` when the file is whole.
    pub(crate) fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        let mut buffer = [0; CHUNK];
        let n = self.file.read(&mut buffer).map_err(|e| failure(&self.path, &e))?;
        if n == 0 {
            conn.send(&FromGuest::Done { id });
            return Ok(true);
        }
        // It may have grown since it was opened.
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| too_large(&self.path))?;
        conn.send_data(FrameKind::File, id, &buffer[..n]);
        Ok(false)
    }
}

fn too_large(path: &Path) -> Failure {
    (FailureKind::TooLarge, path.display().to_string())
}

/// A file on its way from the host: written beside its target, then renamed over it.
pub(crate) struct WriteJob {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    left: u64,
    mode: u32,
    kept: bool,
}

impl WriteJob {
    pub(crate) fn start(id: u32, path: &str, mode: u32, size: u64) -> Result<Self, Failure> {
        let path = absolute(path)?;
        let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
            let why = format!("{} names no file", path.display());
            return Err((FailureKind::Invalid, why));
        };
        fs::create_dir_all(parent).map_err(|e| failure(parent, &e))?;
        let temporary = parent.join(format!(".stockade-write-{id}"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|e| failure(&path, &e))?;
        Ok(Self {
            path,
            temporary,
            file,
            left: size,
            mode,
            kept: false,
        })
    }

    /// Whether all bytes have arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            let why = "more bytes than announced".to_owned();
            (FailureKind::Invalid, why)
        })?;
        self.file.write_all(bytes).map_err(|e| failure(&self.path, &e))
    }

    /// Puts the whole file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.file
            .set_permissions(Permissions::from_mode(self.mode & 0o7777))
            .and_then(|()| fs::rename(&self.temporary, &self.path))
            .map_err(|e| failure(&self.path, &e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for WriteJob {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
