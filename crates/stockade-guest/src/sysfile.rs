//! System calls on files, relative to open directories, as safe functions.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// What stat(2) says.
pub(crate) type Stat = libc::stat;

/// Names a place without opening what is there; needs no right on it and wakes nobody.
pub(crate) const NAME_ONLY: i32 = libc::O_PATH | libc::O_NOFOLLOW;
/// Opens a directory to read its entries.
pub(crate) const READ_DIR: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
/// For opening what should be a regular file and may have become anything: a pipe, a terminal
/// and a file under a lease (fcntl(2), F_SETLEASE) must not hold up pid 1.
pub(crate) const CAREFUL: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// openat(2), always close-on-exec; `mode` is for files it creates.
pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: `name` ends with NUL; the result is a new descriptor we own.
    unsafe {
        let fd = libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode);
        check(fd).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Opens an absolute path whose parts nobody inside can change; links are followed.
pub(crate) fn open_root(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `path` ends with NUL; the result is a new descriptor we own.
    unsafe { check(libc::open(path.as_ptr(), flags)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// fstat(2).
pub(crate) fn stat(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    // SAFETY: stat is plain data and filled by fstat.
    unsafe {
        let mut stat: Stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &raw mut stat))?;
        Ok(stat)
    }
}

/// fstatat(2) without following a link.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    // SAFETY: as above; `name` ends with NUL.
    unsafe {
        let mut stat: Stat = std::mem::zeroed();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        check(libc::fstatat(dir.as_raw_fd(), name.as_ptr(), &raw mut stat, flags))?;
        Ok(stat)
    }
}

/// What a symbolic link says. It is never asked where it really leads (magic links of `/proc`).
pub(crate) fn read_link_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: pointer and length describe `buffer`.
    let n = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(n);
    Ok(buffer)
}

/// mkdirat(2).
pub(crate) fn make_dir_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// unlinkat(2): a file or link, or an empty directory.
pub(crate) fn unlink_at(dir: BorrowedFd<'_>, name: &CStr, directory: bool) -> io::Result<()> {
    let flags = if directory { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: `name` ends with NUL.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// renameat(2).
pub(crate) fn rename_at(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> io::Result<()> {
    let (from_dir, to_dir) = (from.0.as_raw_fd(), to.0.as_raw_fd());
    // SAFETY: both names end with NUL.
    check(unsafe { libc::renameat(from_dir, from.1.as_ptr(), to_dir, to.1.as_ptr()) }).map(drop)
}

/// fchmod(2).
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: fchmod on a descriptor.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode & 0o7777) }).map(drop)
}

/// Eight random bytes (getrandom(2)).
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: pointer and length describe `bytes`.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n != 8 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// An open directory and its entries, read a few at a time (getdents64(2)).
pub(crate) struct Dir {
    fd: OwnedFd,
    buffer: Vec<u8>,
    at: usize,
}

/// Bytes of entries fetched at once.
const ENTRIES: usize = 4096;
/// Offsets in `struct linux_dirent64`: the length of the record, and its name.
const RECORD_LEN: usize = 16;
const NAME: usize = 19;

impl Dir {
    /// Takes a directory opened with [`READ_DIR`].
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Starts over.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.at = 0;
        self.buffer.clear();
        // SAFETY: lseek on a descriptor we own.
        let at = unsafe { libc::lseek(self.fd.as_raw_fd(), 0, libc::SEEK_SET) };
        if at < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The next name that is neither `.` nor `..`.
    pub(crate) fn next_name(&mut self) -> io::Result<Option<CString>> {
        loop {
            if self.at >= self.buffer.len() && !self.fetch()? {
                return Ok(None);
            }
            let record = &self.buffer[self.at..];
            let len = record.get(RECORD_LEN..RECORD_LEN + 2);
            let len = len.map_or(0, |len| usize::from(u16::from_ne_bytes([len[0], len[1]])));
            let name = record
                .get(NAME..len)
                .and_then(|name| CStr::from_bytes_until_nul(name).ok());
            let Some(name) = name else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            let name = name.to_owned();
            self.at += len;
            if !matches!(name.to_bytes(), b"." | b"..") {
                return Ok(Some(name));
            }
        }
    }

    fn fetch(&mut self) -> io::Result<bool> {
        self.at = 0;
        self.buffer.resize(ENTRIES, 0);
        // SAFETY: pointer and length describe `buffer`.
        let n = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        let read = usize::try_from(n).map_err(|_| io::Error::last_os_error());
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|n| n > 0)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_whole_and_again() {
        let dir = std::env::temp_dir().join(format!("stockade-dir-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("mkdir");
        for n in 0..500 {
            std::fs::write(dir.join(format!("a-rather-long-name-{n}")), "").expect("write");
        }
        let fd = std::fs::File::open(&dir).expect("open").into();
        let mut entries = Dir::new(fd);
        for _ in 0..2 {
            let mut names = std::collections::BTreeSet::new();
            while let Some(name) = entries.next_name().expect("reads") {
                assert!(names.insert(name));
            }
            assert_eq!(names.len(), 500);
            entries.rewind().expect("rewinds");
        }
        std::fs::remove_dir_all(&dir).expect("cleans up");
    }
}
