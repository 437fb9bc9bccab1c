//! Files and commands of the sandbox that is none.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_ports::sandbox::{
    Download, Entry, EntryKind, ExecRequest, Listing, Process, SandboxError, SandboxEvidence, SandboxHandle, Snapshot,
    Upload, Watched,
};
use tokio::sync::mpsc;

use super::{BACKEND, Place, exec};
use crate::live::reason;

/// Bytes in one piece of a download.
const PIECE: usize = 64 * 1024;

pub(super) struct Handle(pub(super) Arc<Place>);

impl Handle {
    fn real(&self, path: &str) -> Result<PathBuf, SandboxError> {
        if path.starts_with('/') && !path.contains('\0') {
            return Ok(self.0.real(path).into());
        }
        let why = format!("'{path}' is not a path inside the sandbox: give an absolute one");
        Err(SandboxError::Invalid(why))
    }
}

fn incapable<T>(what: &'static str) -> Result<T, SandboxError> {
    Err(SandboxError::Incapable { backend: BACKEND, what })
}

/// The port's error for a file operation.
fn failed<'p>(operation: &'static str, path: &'p str) -> impl Fn(io::Error) -> SandboxError + use<'p> {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => SandboxError::NotFound(path.to_owned()),
        io::ErrorKind::StorageFull => SandboxError::DiskFull(path.to_owned()),
        _ => SandboxError::Inside {
            operation: format!("{operation} {path}"),
            cause: error.to_string(),
        },
    }
}

fn read(real: &Path, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
    let meta = fs::metadata(real).map_err(failed("reading", path))?;
    if !meta.is_file() {
        return Err(SandboxError::Invalid(format!("{path} is not a regular file")));
    }
    if meta.len() > limit {
        let what = path.to_owned();
        return Err(SandboxError::TooLarge { what, limit });
    }
    fs::read(real).map(Bytes::from).map_err(failed("reading", path))
}

fn write(real: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = real.parent() {
        fs::create_dir_all(parent)?;
    }
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let beside = real.with_file_name(format!(".{name}.part"));
    fs::write(&beside, content)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, real)
}

fn entry(real: &Path, path: String) -> io::Result<Entry> {
    let meta = fs::symlink_metadata(real)?;
    let kind = match meta.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    };
    let target = match kind {
        EntryKind::Link => Some(fs::read_link(real)?.to_string_lossy().into_owned()),
        _ => None,
    };
    Ok(Entry {
        path,
        kind,
        size: meta.len(),
        mode: meta.mode() & 0o7777,
        modified_ms: meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000,
        target,
    })
}

fn walk(real: &Path, path: &str, depth: u32, found: &mut Vec<Entry>) -> io::Result<()> {
    for item in fs::read_dir(real)? {
        let item = item?;
        let path = format!("{}/{}", path.trim_end_matches('/'), item.file_name().to_string_lossy());
        let entry = entry(&item.path(), path.clone())?;
        let deeper = entry.kind == EntryKind::Directory && depth > 1;
        found.push(entry);
        if deeper {
            walk(&item.path(), &path, depth - 1, found)?;
        }
    }
    Ok(())
}

#[async_trait]
impl SandboxHandle for Handle {
    fn evidence(&self) -> SandboxEvidence {
        self.0.evidence()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        if let Some(why) = self.0.over.borrow().clone() {
            return Err(SandboxError::Gone(why));
        }
        exec::start(&self.0, &request)
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        read(&self.real(path)?, path, limit)
    }

    async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError> {
        let real = self.real(path)?;
        if !real.starts_with(&self.0.dir) {
            // Other backends show the host's files read-only; here they are the host's own.
            let why = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
            return Err(failed("writing", path)(why));
        }
        write(&real, &content, mode).map_err(failed("writing", path))
    }

    async fn download(&self, path: &str, limit: u64) -> Result<Download, SandboxError> {
        let content = read(&self.real(path)?, path, limit)?;
        let (pieces, received) = mpsc::channel(4);
        tokio::spawn(async move {
            for start in (0..content.len()).step_by(PIECE) {
                let piece = content.slice(start..content.len().min(start + PIECE));
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Download { pieces: received })
    }

    async fn upload(&self, path: &str, mode: u32, limit: u64) -> Result<Upload, SandboxError> {
        let (real, path) = (self.real(path)?, path.to_owned());
        let (upload, mut pieces, done) = Upload::channel();
        tokio::spawn(async move {
            let mut content = Vec::new();
            let result = loop {
                match pieces.recv().await {
                    Some(Some(piece)) => content.extend_from_slice(&piece),
                    Some(None) => break write(&real, &content, mode).map_err(failed("writing", &path)),
                    // Given up: the place stays as it was.
                    None => return,
                }
                if content.len() as u64 > limit {
                    let what = path.clone();
                    break Err(SandboxError::TooLarge { what, limit });
                }
            };
            let _ = done.send(result);
        });
        Ok(upload)
    }

    async fn stat(&self, path: &str) -> Result<Entry, SandboxError> {
        entry(&self.real(path)?, path.to_owned()).map_err(failed("looking at", path))
    }

    async fn list(&self, path: &str, depth: u32, limit: u32) -> Result<Listing, SandboxError> {
        let mut entries = Vec::new();
        walk(&self.real(path)?, path, depth, &mut entries).map_err(failed("listing", path))?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let truncated = entries.len() > limit;
        entries.truncate(limit);
        Ok(Listing { entries, truncated })
    }

    async fn make_dir(&self, path: &str, mode: u32) -> Result<(), SandboxError> {
        let real = self.real(path)?;
        if real.is_dir() {
            return Ok(());
        }
        let made =
            fs::create_dir_all(&real).and_then(|()| fs::set_permissions(&real, fs::Permissions::from_mode(mode)));
        made.map_err(failed("making the directory", path))
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), SandboxError> {
        let real = self.real(path)?;
        let meta = fs::symlink_metadata(&real).map_err(failed("removing", path))?;
        let removed = match (meta.is_dir(), recursive) {
            (false, _) => fs::remove_file(&real),
            (true, false) => fs::remove_dir(&real),
            (true, true) => fs::remove_dir_all(&real),
        };
        removed.map_err(failed("removing", path))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), SandboxError> {
        fs::rename(self.real(from)?, self.real(to)?).map_err(failed("renaming", from))
    }

    async fn watch(&self, _path: &str, _recursive: bool) -> Result<Watched, SandboxError> {
        incapable("watch files")
    }

    async fn pause(&self) -> Result<(), SandboxError> {
        incapable("pause")
    }

    async fn resume(&self) -> Result<(), SandboxError> {
        incapable("pause")
    }

    async fn snapshot(&self, _dir: &Path) -> Result<Snapshot, SandboxError> {
        incapable("take snapshots")
    }

    async fn stop(&self, _grace: Duration) -> Result<(), SandboxError> {
        self.0.destroy()
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.0.destroy()
    }

    async fn ended(&self) -> String {
        reason(self.0.over.subscribe()).await
    }
}
