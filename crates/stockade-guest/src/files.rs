//! Files for the host, with the rights of the agent's user and nobody else's: reading, and what
//! takes one step.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd},
};

use stockade_guest_proto::{FileEntry, FileKind, FrameKind, FromGuest, data_cost};

use crate::{
    conn::Conn,
    path::{self, Failure, failure, invalid},
    sysfile::{self, Stat},
};

const CHUNK: usize = 32 * 1024;

/// A file on its way to the host.
pub(crate) struct ReadJob {
    path: String,
    file: File,
    left: u64,
    /// How much the host has room for; without it, for everything.
    credit: Option<u64>,
}

impl ReadJob {
    pub(crate) fn start(path: &str, limit: u64, credit: Option<u64>) -> Result<Self, Failure> {
        let found = path::find(path, true)?;
        let regular = |stat: &Stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let not_regular = || invalid(format!("{path} is not a regular file"));
        if !regular(&found.stat) {
            return Err(not_regular());
        }
        let flags = libc::O_RDONLY | sysfile::CAREFUL;
        let file = sysfile::open_at(found.parent.as_fd(), &found.name, flags, 0).map_err(|e| failure(path, &e))?;
        // It may be something else by now.
        let stat = path::judged(file.as_fd(), path)?;
        if !regular(&stat) {
            return Err(not_regular());
        }
        if u64::try_from(stat.st_size).unwrap_or(0) > limit {
            return Err(too_large(path));
        }
        Ok(Self {
            path: path.to_owned(),
            file: file.into(),
            left: limit,
            credit,
        })
    }

    pub(crate) fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.map(|credit| credit.saturating_add(bytes));
    }

    /// Whether the host has room for more.
    pub(crate) fn is_runnable(&self) -> bool {
        self.credit.is_none_or(|credit| credit > data_cost(0))
    }

    /// Sends the next piece; `true` when the file is whole.
    pub(crate) fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        let mut buffer = [0; CHUNK];
        let room = self.credit.map(|credit| credit.saturating_sub(data_cost(0)));
        let room = room.and_then(|room| usize::try_from(room).ok());
        let most = room.unwrap_or(CHUNK).min(CHUNK);
        let n = self
            .file
            .read(&mut buffer[..most])
            .map_err(|e| failure(&self.path, &e))?;
        if n == 0 {
            conn.send(&FromGuest::Done { id });
            return Ok(true);
        }
        // It may have grown since it was opened.
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| too_large(&self.path))?;
        self.credit = self.credit.map(|credit| credit.saturating_sub(data_cost(n)));
        conn.send_data(FrameKind::File, id, &buffer[..n]);
        Ok(false)
    }
}

pub(crate) fn too_large(path: &str) -> Failure {
    (stockade_guest_proto::FailureKind::TooLarge, path.to_owned())
}

/// What a path names, without following its last part.
pub(crate) fn stat(path: &str) -> Result<FileEntry, Failure> {
    let found = path::find(path, false)?;
    Ok(entry(path.to_owned(), &found.stat, found.parent.as_fd(), &found.name))
}

/// An entry; the text of a link is read where it stands.
pub(crate) fn entry(path: String, stat: &Stat, dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> FileEntry {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::File,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Link,
        _ => FileKind::Other,
    };
    let target = (kind == FileKind::Link).then(|| sysfile::read_link_at(dir, name).unwrap_or_default());
    let seconds = stat.st_mtime.saturating_mul(1000);
    FileEntry {
        path,
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        modified_ms: seconds.saturating_add(stat.st_mtime_nsec / 1_000_000),
        target: target.map(|target| String::from_utf8_lossy(&target).into_owned()),
    }
}

/// Makes a directory and those above it.
pub(crate) fn make_dir(path: &str, mode: u32) -> Result<(), Failure> {
    // The root of a tree is there.
    if path::find(path, false).is_ok_and(|found| found.kind() == libc::S_IFDIR) {
        return Ok(());
    }
    let place = path::place(path, true)?;
    match sysfile::make_dir_at(place.parent.as_fd(), &place.name, 0o700) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            let there = sysfile::stat_at(place.parent.as_fd(), &place.name).map_err(|e| failure(path, &e))?;
            if there.st_mode & libc::S_IFMT == libc::S_IFDIR {
                return Ok(());
            }
            return Err(invalid(format!("{path} is there and is no directory")));
        }
        Err(e) => return Err(failure(path, &e)),
    }
    // Not subject to the umask, and by descriptor: its name may be somebody else's by now.
    let made = path::open_dir(place.parent.as_fd(), &place.name, path)?;
    sysfile::set_mode(made.as_fd(), mode).map_err(|e| failure(path, &e))
}

/// Gives something another name.
pub(crate) fn rename(from: &str, to: &str) -> Result<(), Failure> {
    let source = path::place(from, false)?;
    let target = path::place(to, false)?;
    let shown = format!("{from} to {to}");
    let (a, b) = (source.parent.as_fd(), target.parent.as_fd());
    sysfile::rename_at((a, &source.name), (b, &target.name)).map_err(|e| failure(&shown, &e))
}
