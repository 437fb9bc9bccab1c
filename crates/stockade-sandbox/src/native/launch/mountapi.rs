//! The kernel's descriptor-based mount calls, which libc does not wrap yet (Linux 5.12).
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const SYS_MOUNT_SETATTR: libc::c_long = 442;

/// Flags of one mount.
pub(crate) const RDONLY: u64 = 1;
pub(crate) const NOSUID: u64 = 2;
pub(crate) const NODEV: u64 = 4;
pub(crate) const NOEXEC: u64 = 8;
const IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn path_text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A detached copy of the mounts at and below `path`.
pub(crate) fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = path_text(path)?;
    let close_on_exec = libc::O_CLOEXEC.unsigned_abs();
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | close_on_exec;
    // SAFETY: `path` is NUL-terminated and outlives the call; the result is a new descriptor.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Attaches a detached tree at `target`.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: &str) -> io::Result<()> {
    let target = path_text(Path::new(target))?;
    // SAFETY: both paths are NUL-terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Shows a detached tree's owners through a user namespace's mapping, without
/// changing a file.
pub(crate) fn map_owners(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        set: IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    set_attributes(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &attr)
}

/// Takes a detached tree out of its peer groups.
pub(crate) fn make_private(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        set: 0,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    set_attributes(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &attr)
}

/// Adds flags to every mount at and below `target`.
pub(crate) fn restrict(target: &str, flags: u64) -> io::Result<()> {
    let attr = MountAttr {
        set: flags,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(libc::AT_FDCWD, &path_text(Path::new(target))?, 0, &attr)
}

/// Adds flags to the mount at `target` and to none below it.
pub(crate) fn restrict_one(target: &str, flags: u64) -> io::Result<()> {
    let attr = MountAttr {
        set: flags,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let path = path_text(Path::new(target))?;
    // SAFETY: `attr` has the kernel's layout and its size is passed; `path` is NUL-terminated.
    check(unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

fn set_attributes(dir: RawFd, path: &std::ffi::CStr, flags: libc::c_int, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: `attr` has the kernel's layout and its size is passed; `path` is NUL-terminated.
    check(unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            dir,
            path.as_ptr(),
            flags.unsigned_abs() | AT_RECURSIVE,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Whether the file system at `path` keeps `user.` attributes, which an overlay made
/// inside a user namespace needs for its upper layer (tmpfs: Linux 6.6).
pub(crate) fn keeps_user_attributes(path: &str) -> io::Result<bool> {
    let path = path_text(Path::new(path))?;
    // SAFETY: all pointers are to NUL-terminated or sized buffers that outlive the calls.
    let result = unsafe {
        let name = c"user.stockade";
        let set = libc::setxattr(path.as_ptr(), name.as_ptr(), b"y".as_ptr().cast(), 1, 0);
        if set == 0 {
            libc::removexattr(path.as_ptr(), name.as_ptr());
        }
        set
    };
    match check(result.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}
