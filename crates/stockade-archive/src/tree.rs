//! Changes beneath one directory, by descriptors and without following a link.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dev, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fchmod,
        fsetxattr, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use crate::{
    OPAQUE,
    error::{ArchiveError, refused, system},
    names::{Name, show},
    walk,
};

/// Mode of directories that an archive does not mention.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);

/// Stays beneath the directory, whatever is in it.
fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

/// A directory that is being filled.
pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The directory of the last entry: archives come sorted, so it is mostly the next one's too.
    last: Option<(Name, OwnedFd)>,
    /// Directories made without being asked for.
    pub(crate) implied: u64,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            last: None,
            implied: 0,
        }
    }

    /// Opens a directory of the tree.
    pub(crate) fn open(&self, dir: &Name) -> Result<OwnedFd, Errno> {
        let path = if dir.is_root() { b"." } else { dir.bytes() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(self.root, path, flags, Mode::empty(), beneath())
    }

    /// The directory an entry goes to, made if it is missing.
    pub(crate) fn parent(&mut self, dir: &Name) -> Result<BorrowedFd<'_>, ArchiveError> {
        if self.last.as_ref().is_none_or(|(name, _)| name != dir) {
            let fd = match self.open(dir) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make(dir)?,
                Err(Errno::LOOP) => return Err(through_link(dir)),
                Err(errno) => return Err(system(format!("open {}", show(dir.bytes())))(errno)),
            };
            self.last = Some((dir.clone(), fd));
        }
        // Set in every case; the second arm keeps the compiler and the reader calm.
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root),
        }
    }

    /// Makes a directory and those above it.
    fn make(&mut self, dir: &Name) -> Result<OwnedFd, ArchiveError> {
        let mut at = Name::default();
        let mut fd = self.open(&at).map_err(system("open the root"))?;
        for part in dir.parts() {
            at = at.child(part);
            let step = || format!("make the directory {}", show(at.bytes()));
            match statat(&fd, part, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    fd = self.implied(&fd, part, &at).map_err(system(step()))?;
                }
                Ok(stat) if is_whiteout(&stat) => {
                    // What was below is gone; what comes now starts afresh.
                    unlinkat(&fd, part, AtFlags::empty()).map_err(system(step()))?;
                    fd = self.implied(&fd, part, &at).map_err(system(step()))?;
                    mark_opaque(fd.as_fd()).map_err(system(step()))?;
                }
                Ok(stat) => match kind(&stat) {
                    FileType::Directory => fd = self.open(&at).map_err(system(step()))?,
                    FileType::Symlink => return Err(through_link(dir)),
                    _ => {
                        return Err(refused(format!(
                            "{} is not a directory, and an entry is in it",
                            show(at.bytes())
                        )));
                    }
                },
                Err(errno) => return Err(system(step())(errno)),
            }
        }
        Ok(fd)
    }

    fn implied(&mut self, parent: &OwnedFd, part: &[u8], path: &Name) -> rustix::io::Result<OwnedFd> {
        mkdirat(parent, part, IMPLIED)?;
        self.implied += 1;
        let fd = self.open(path)?;
        // Not subject to the umask.
        fchmod(&fd, IMPLIED)?;
        Ok(fd)
    }

    /// What has a name now, if anything.
    pub(crate) fn look(&mut self, name: &Name) -> Result<Option<Stat>, ArchiveError> {
        let Some((parent, last)) = name.split() else {
            return Ok(None);
        };
        let parent = self.parent(&parent)?;
        match statat(parent, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(system(format!("look at {}", show(name.bytes())))(errno)),
        }
    }

    /// Frees a name; a directory goes with what is in it.
    pub(crate) fn clear(&mut self, name: &Name) -> Result<(), ArchiveError> {
        let Some(stat) = self.look(name)? else {
            return Ok(());
        };
        let step = || format!("replace {}", show(name.bytes()));
        let Some((parent, last)) = name.split() else {
            return Ok(());
        };
        if kind(&stat) == FileType::Directory {
            let parent = self.parent(&parent)?.try_clone_to_owned().map_err(system(step()))?;
            walk::remove(parent.as_fd(), last).map_err(system(step()))?;
            // It may have been the remembered one, or have held it.
            self.last = None;
            return Ok(());
        }
        let parent = self.parent(&parent)?;
        unlinkat(parent, last, AtFlags::empty()).map_err(system(step()))
    }

    /// Runs a step on the directory and the last part of a name.
    pub(crate) fn at<T>(
        &mut self,
        name: &Name,
        what: &str,
        step: impl FnOnce(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, ArchiveError> {
        let Some((parent, last)) = name.split() else {
            return Err(refused(format!("{what}: the root is a directory and stays one")));
        };
        let parent = self.parent(&parent)?;
        step(parent, last).map_err(system(format!("{what} {}", show(name.bytes()))))
    }

    pub(crate) fn file(&mut self, name: &Name) -> Result<File, ArchiveError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        self.at(name, "write", |dir, last| openat(dir, last, flags, mode))
            .map(File::from)
    }

    pub(crate) fn directory(&mut self, name: &Name) -> Result<(), ArchiveError> {
        self.at(name, "make the directory", |dir, last| mkdirat(dir, last, IMPLIED))
    }

    pub(crate) fn symlink(&mut self, name: &Name, target: &[u8]) -> Result<(), ArchiveError> {
        self.at(name, "make the link", |dir, last| symlinkat(target, dir, last))
    }

    /// A character device 0:0, which everybody may make since Linux 5.8.
    pub(crate) fn whiteout(&mut self, name: &Name) -> Result<(), ArchiveError> {
        let device: Dev = 0;
        self.at(name, "make the whiteout", |dir, last| {
            mknodat(dir, last, FileType::CharacterDevice, Mode::empty(), device)
        })
    }

    /// Another name for an earlier file or link of the same archive.
    pub(crate) fn hard_link(&mut self, name: &Name, target: &Name) -> Result<(), ArchiveError> {
        let wrong = |why: &str| {
            refused(format!(
                "entry {}: a hard link to {}, {why}",
                show(name.bytes()),
                show(target.bytes())
            ))
        };
        let Some((from, old)) = target.split() else {
            return Err(wrong("which is the root"));
        };
        let from = match self.open(&from) {
            Ok(from) => from,
            Err(_) => return Err(wrong("which no earlier entry of this archive made")),
        };
        match statat(&from, old, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if matches!(kind(&stat), FileType::RegularFile | FileType::Symlink) => {}
            Ok(_) => return Err(wrong("which is no file")),
            Err(_) => return Err(wrong("which no earlier entry of this archive made")),
        }
        self.at(name, "link", |dir, last| {
            linkat(&from, old, dir, last, AtFlags::empty())
        })
    }

    pub(crate) fn opaque(&mut self, dir: &Name) -> Result<(), ArchiveError> {
        let step = format!("mark {} as opaque", show(dir.bytes()));
        let fd = self.parent(dir)?;
        mark_opaque(fd).map_err(system(step))
    }

    /// Gives a directory its mode and time once it is full. One that was replaced since is left.
    pub(crate) fn finish(&self, dir: &Name, mode: u32, modified: i64) -> Result<(), ArchiveError> {
        let Ok(fd) = self.open(dir) else {
            return Ok(());
        };
        let step = || format!("finish the directory {}", show(dir.bytes()));
        fchmod(&fd, Mode::from_raw_mode(mode)).map_err(system(step()))?;
        set_time(&fd, modified).map_err(system(step()))
    }
}

fn through_link(dir: &Name) -> ArchiveError {
    refused(format!("{} leads through a symbolic link", show(dir.bytes())))
}

fn mark_opaque(dir: BorrowedFd<'_>) -> io::Result<()> {
    match fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Err(io::Error::other(
            "this file system keeps no user attributes; use ext4, xfs or btrfs, or tmpfs on Linux 6.6 or later",
        )),
        other => Ok(other?),
    }
}

/// Sets the time of what a descriptor names.
pub(crate) fn set_time(fd: impl AsFd, modified: i64) -> rustix::io::Result<()> {
    rustix::fs::futimens(fd, &times(modified))
}

/// Sets the time of a link itself.
pub(crate) fn set_link_time(dir: BorrowedFd<'_>, name: &[u8], modified: i64) -> rustix::io::Result<()> {
    utimensat(dir, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(modified: i64) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let modified = Timespec {
        // Before 1970 and after 2106 some file systems refuse.
        tv_sec: modified.clamp(0, i64::from(u32::MAX)),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: omit,
        last_modification: modified,
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlay's mark of something that is gone.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The directory itself as a full descriptor, not only a path.
pub(crate) fn reopen(dir: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    openat(
        dir,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
