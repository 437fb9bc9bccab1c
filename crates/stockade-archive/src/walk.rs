//! Walking a directory of hostile content by descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, openat, statat, unlinkat},
    io::Errno,
};

use crate::tree::kind;

/// Names in a directory, sorted by bytes, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory that must not be a link.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Removes a name and, when it is a directory, what is in it. As deep as unpacking made it.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if kind(&stat) != rustix::fs::FileType::Directory {
        return unlinkat(parent, name, AtFlags::empty());
    }
    let dir = open_dir(parent, name)?;
    for entry in names(dir.as_fd())? {
        remove(dir.as_fd(), &entry)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
