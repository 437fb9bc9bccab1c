//! inotify(7) as safe functions.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// What is asked of every watched directory.
const MASK: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MODIFY
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ONLYDIR
    | libc::IN_EXCL_UNLINK;
/// Bytes of events taken at once.
const BUFFER: usize = 4096;
/// Bytes of `struct inotify_event` before the name.
const HEADER: usize = 16;

/// An inotify instance.
pub(crate) struct Inotify(OwnedFd);

/// One event; the name is empty when it is about the watched directory itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) watch: i32,
    pub(crate) mask: u32,
    pub(crate) cookie: u32,
    pub(crate) name: CString,
}

impl Event {
    pub(crate) fn has(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }
}

impl Inotify {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the result is a new descriptor we own.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Watches an open directory. inotify only knows paths, so it is named by the Guest's own
    /// descriptor, which nobody else can change.
    pub(crate) fn add(&self, dir: BorrowedFd<'_>) -> io::Result<i32> {
        let path = CString::new(format!("/proc/self/fd/{}", dir.as_raw_fd())).map_err(io::Error::other)?;
        // SAFETY: `path` ends with NUL.
        let watch = unsafe { libc::inotify_add_watch(self.raw(), path.as_ptr(), MASK) };
        if watch < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(watch)
        }
    }

    pub(crate) fn remove(&self, watch: i32) {
        // SAFETY: numbers only; a watch that is gone is an error nobody needs.
        unsafe { libc::inotify_rm_watch(self.raw(), watch) };
    }

    /// The events that have arrived, some of them; none when there are none.
    pub(crate) fn read(&self) -> io::Result<Vec<Event>> {
        let mut buffer = [0; BUFFER];
        match crate::sys::read(self.raw(), &mut buffer) {
            Ok(n) => Ok(events(&buffer[..n])),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(HEADER) {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = usize::try_from(word(12)).unwrap_or(usize::MAX);
        let Some((name, rest)) = rest.split_at_checked(len) else {
            break;
        };
        let name = CStr::from_bytes_until_nul(name).unwrap_or(c"");
        events.push(Event {
            watch: word(0).cast_signed(),
            mask: word(4),
            cookie: word(8),
            name: name.to_owned(),
        });
        bytes = rest;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_apart_and_a_broken_tail_is_left_out() {
        let mut bytes = Vec::new();
        for (watch, name) in [(1_i32, &b"a\0\0\0"[..]), (2, b"")] {
            bytes.extend(watch.to_ne_bytes());
            bytes.extend(libc::IN_CREATE.to_ne_bytes());
            bytes.extend(7_u32.to_ne_bytes());
            bytes.extend(u32::try_from(name.len()).expect("short").to_ne_bytes());
            bytes.extend(name);
        }
        let whole = events(&bytes);
        assert_eq!(whole.len(), 2);
        assert_eq!(
            (whole[0].watch, whole[0].name.as_c_str(), whole[0].cookie),
            (1, c"a", 7)
        );
        assert_eq!((whole[1].watch, whole[1].name.as_c_str()), (2, c""));
        for cut in 0..bytes.len() {
            assert!(events(&bytes[..cut]).len() < 2);
        }
    }
}
