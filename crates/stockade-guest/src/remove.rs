//! Removing, a little at a time so that nobody else waits.
//!
//! Directories are emptied through their descriptors, never through `..` or a path: whoever
//! moves one away meanwhile moves it with what is still in it, and nothing else is touched.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, OwnedFd},
};

use stockade_guest_proto::FromGuest;

use crate::{
    conn::Conn,
    path::{self, Failure, Place, failure, invalid},
    sysfile::{self, Dir},
};

/// Names removed in one step.
const STEP: usize = 256;
/// Directories open at once. What is deeper is moved up first, so no depth is too deep.
const MAX_OPEN: usize = 64;
/// How often directories are read again because something is still in them.
const MAX_ROUNDS: u32 = 10_000;

/// A removal in progress.
pub(crate) struct RemoveJob {
    path: String,
    place: Place,
    levels: Vec<Level>,
    moved: u64,
    rounds: u32,
}

/// A directory being emptied.
struct Level {
    dir: Dir,
    name: CString,
}

/// What became of one name.
enum Gone {
    Yes,
    /// It is a directory with something in it.
    Full(OwnedFd),
}

impl RemoveJob {
    /// Removes at once what can be; the rest is a job. `None` when nothing is left to do.
    pub(crate) fn start(path: &str, recursive: bool) -> Result<Option<Self>, Failure> {
        let place = path::place(path, false)?;
        let stat = sysfile::stat_at(place.parent.as_fd(), &place.name).map_err(|e| failure(path, &e))?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR && !recursive {
            return Err(invalid(format!(
                "{path} is a directory: ask to remove what is in it too"
            )));
        }
        let first = match remove(&place.parent, &place.name, recursive) {
            Ok(Gone::Yes) => return Ok(None),
            Ok(Gone::Full(dir)) => dir,
            Err(e) => return Err(failure(path, &e)),
        };
        path::judged(first.as_fd(), path)?;
        let name = place.name.clone();
        let dir = Dir::new(first);
        Ok(Some(Self {
            path: path.to_owned(),
            place,
            levels: vec![Level { dir, name }],
            moved: 0,
            rounds: 0,
        }))
    }

    /// Removes some more; `true` when everything is gone.
    pub(crate) fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        for _ in 0..STEP {
            if self.one().map_err(|e| failure(&self.path, &e))? {
                conn.send(&FromGuest::Done { id });
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn one(&mut self) -> io::Result<bool> {
        let open = self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return Ok(true);
        };
        let Some(name) = level.dir.next_name()? else {
            return self.leave();
        };
        let Gone::Full(full) = remove(&level.dir, &name, true)? else {
            return Ok(false);
        };
        if open < MAX_OPEN {
            let dir = Dir::new(full);
            self.levels.push(Level { dir, name });
            return Ok(false);
        }
        self.moved += 1;
        let shallow = CString::new(format!(".stockade-remove-{}", self.moved)).map_err(io::Error::other)?;
        let (top, deep) = (&self.levels[0].dir, &self.levels[open - 1].dir);
        sysfile::rename_at((deep.as_fd(), &name), (top.as_fd(), &shallow))?;
        Ok(false)
    }

    /// Removes the directory that was read to its end, or reads it again if it is not empty.
    fn leave(&mut self) -> io::Result<bool> {
        let Some(mut level) = self.levels.pop() else {
            return Ok(true);
        };
        let above = self
            .levels
            .last()
            .map_or(self.place.parent.as_fd(), |above| above.dir.as_fd());
        match sysfile::unlink_at(above, &level.name, true) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            // Moved up from below, or made by somebody meanwhile.
            Err(e) if is_full(&e) && self.rounds < MAX_ROUNDS => {
                self.rounds += 1;
                level.dir.rewind()?;
                self.levels.push(level);
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        Ok(self.levels.is_empty())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST))
}

/// Removes one name, whatever it is. Gone already is gone.
fn remove(parent: &impl AsFd, name: &CStr, directories: bool) -> io::Result<Gone> {
    let parent = parent.as_fd();
    match sysfile::unlink_at(parent, name, false) {
        Ok(()) => return Ok(Gone::Yes),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Gone::Yes),
        Err(e) if directories && matches!(e.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => {}
        Err(e) => return Err(e),
    }
    match sysfile::unlink_at(parent, name, true) {
        Ok(()) => Ok(Gone::Yes),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Gone::Yes),
        Err(e) if is_full(&e) => {
            let dir = sysfile::open_at(parent, name, sysfile::READ_DIR, 0)?;
            Ok(Gone::Full(dir))
        }
        Err(e) => Err(e),
    }
}
