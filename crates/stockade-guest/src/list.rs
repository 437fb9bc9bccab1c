//! What is below a directory, told a little at a time so that nobody else waits.

use std::{
    collections::VecDeque,
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

use stockade_guest_proto::{FileEntry, FromGuest};

use crate::{
    conn::Conn,
    files,
    path::{self, Failure, failure, invalid},
    sysfile::{self, Dir, NAME_ONLY},
};

/// Entries looked at in one step.
const STEP: usize = 256;
/// Bytes of names in one message; written as JSON they may be six times as long.
const MESSAGE: usize = 64 * 1024;
/// Bytes of names of directories still to be looked into. The agent decides how many there
/// are, so there is an end to it.
const MAX_AHEAD: usize = 4 << 20;
/// Longest path told, and gone into (PATH_MAX).
const MAX_PATH: usize = 4096;

/// A listing in progress: breadth first, so that what is cut off is the deepest.
pub(crate) struct ListJob {
    path: String,
    root: OwnedFd,
    ahead: VecDeque<Ahead>,
    ahead_bytes: usize,
    now: Option<(Dir, Ahead)>,
    depth: u32,
    left: u32,
    truncated: bool,
}

/// A directory to look into: its names from the root down, and its level.
struct Ahead {
    names: Vec<u8>,
    level: u32,
}

enum Next {
    Entry(FileEntry),
    Nothing,
    End,
}

impl ListJob {
    pub(crate) fn start(path: &str, depth: u32, limit: u32) -> Result<Self, Failure> {
        if depth == 0 {
            return Err(invalid("a depth of zero: 1 is the directory's own entries".to_owned()));
        }
        let found = path::find(path, true)?;
        if found.kind() != libc::S_IFDIR {
            return Err(invalid(format!("{path} is not a directory")));
        }
        let dir = path::open_dir(found.parent.as_fd(), &found.name, path)?;
        let root = dir.try_clone().map_err(|e| failure(path, &e))?;
        let names = Vec::new();
        Ok(Self {
            path: path.trim_end_matches('/').to_owned(),
            root,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            now: Some((Dir::new(dir), Ahead { names, level: 1 })),
            depth,
            left: limit,
            truncated: false,
        })
    }

    /// Tells some more; `true` when everything is told.
    pub(crate) fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut over = false;
        for _ in 0..STEP {
            if bytes >= MESSAGE || over {
                break;
            }
            match self.next()? {
                Next::Entry(entry) => {
                    bytes += entry.path.len() + entry.target.as_ref().map_or(0, String::len);
                    entries.push(entry);
                }
                Next::Nothing => {}
                Next::End => over = true,
            }
        }
        if !entries.is_empty() || over {
            let truncated = self.truncated;
            conn.send(&FromGuest::Entries { id, entries, truncated });
        }
        if over {
            conn.send(&FromGuest::Done { id });
        }
        Ok(over)
    }

    fn next(&mut self) -> Result<Next, Failure> {
        let Some((dir, at)) = &mut self.now else {
            return Ok(self.next_directory());
        };
        let name = match dir.next_name() {
            Ok(Some(name)) => name,
            // The directory itself was asked for; one below may be lost while we look.
            Err(e) if at.level == 1 => return Err(failure(&self.path, &e)),
            Ok(None) | Err(_) => {
                self.now = None;
                return Ok(Next::Nothing);
            }
        };
        let Ok(stat) = sysfile::stat_at(dir.as_fd(), &name) else {
            return Ok(Next::Nothing);
        };
        let mut names = at.names.clone();
        if !names.is_empty() {
            names.push(b'/');
        }
        names.extend_from_slice(name.to_bytes());
        let shown = format!("{}/{}", self.path, String::from_utf8_lossy(&names));
        if self.left == 0 || shown.len() > MAX_PATH {
            self.truncated = true;
            return Ok(if self.left == 0 { Next::End } else { Next::Nothing });
        }
        self.left -= 1;
        let entry = files::entry(shown, &stat, dir.as_fd(), &name);
        let level = at.level + 1;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR && level <= self.depth {
            self.remember(Ahead { names, level });
        }
        Ok(Next::Entry(entry))
    }

    fn remember(&mut self, ahead: Ahead) {
        if self.ahead_bytes + ahead.names.len() > MAX_AHEAD {
            self.truncated = true;
        } else {
            self.ahead_bytes += ahead.names.len();
            self.ahead.push_back(ahead);
        }
    }

    /// Opens the next directory; one that is gone, closed or somebody's link by now is passed over.
    fn next_directory(&mut self) -> Next {
        let Some(ahead) = self.ahead.pop_front() else {
            return Next::End;
        };
        self.ahead_bytes -= ahead.names.len();
        if let Some(dir) = descend(&self.root, &ahead.names) {
            self.now = Some((Dir::new(dir), ahead));
        }
        Next::Nothing
    }
}

/// Opens a directory below another one by names, none of which is followed if it is a link.
pub(crate) fn descend(root: &OwnedFd, names: &[u8]) -> Option<OwnedFd> {
    let mut parts = names.split(|&b| b == b'/');
    let last = CString::new(parts.next_back()?).ok()?;
    let mut at = root.try_clone().ok()?;
    for part in parts {
        let part = CString::new(part).ok()?;
        at = sysfile::open_at(at.as_fd(), &part, NAME_ONLY | libc::O_DIRECTORY, 0).ok()?;
    }
    // Refuses /proc, whose own entry is listed.
    path::open_dir(at.as_fd(), &last, "").ok()
}
