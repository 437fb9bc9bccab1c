//! Pseudo-terminals (pty(7)).
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use stockade_guest_proto::TerminalSize;

use crate::{sys, sysfile};

/// Major number of the device behind `/dev/ptmx` (Documentation/admin-guide/devices.txt).
const TTYAUX_MAJOR: u32 = 5;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A new terminal.
pub(crate) struct Terminal {
    /// The Guest's end, non-blocking.
    pub(crate) ours: OwnedFd,
    /// The command's end.
    pub(crate) theirs: OwnedFd,
    /// Whether the kernel is one that tells the foreground of a new size. gVisor's does not; it
    /// is known by what else its terminals lack.
    pub(crate) tells_size: bool,
}

/// Opens a new terminal.
pub(crate) fn open(size: TerminalSize) -> io::Result<Terminal> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let dev = sysfile::open_root(c"/dev")?;
    // Followed: in most file systems it is a link to pts/ptmx.
    let ours = sysfile::open_at(dev.as_fd(), c"ptmx", flags | libc::O_NONBLOCK, 0)?;
    if libc::major(sysfile::stat(ours.as_fd())?.st_rdev) != TTYAUX_MAJOR {
        return Err(io::Error::other("/dev/ptmx is something else"));
    }
    let mut number: libc::c_int = 0;
    let unlock: libc::c_int = 0;
    // SAFETY: both requests take a pointer to one int.
    unsafe {
        check(libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock))?;
        check(libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN, &raw mut number))?;
    }
    // The peer itself where the kernel gives it (4.13), else by its name.
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor, which we own.
    let peer = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags | libc::O_CLOEXEC) };
    let theirs = if peer >= 0 {
        // SAFETY: as above.
        unsafe { OwnedFd::from_raw_fd(peer) }
    } else {
        let name = CString::new(format!("pts/{number}")).map_err(io::Error::other)?;
        sysfile::open_at(dev.as_fd(), &name, flags | libc::O_NOFOLLOW, 0)?
    };
    resize(ours.as_fd(), size)?;
    sys::set_nonblocking(ours.as_raw_fd())?;
    let tells_size = peer >= 0;
    Ok(Terminal {
        ours,
        theirs,
        tells_size,
    })
}

/// Sets the size; the kernel tells the terminal's foreground with SIGWINCH.
pub(crate) fn resize(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// The character that means "end of file" on this terminal now; `None` when it has none.
pub(crate) fn end_of_file(terminal: BorrowedFd<'_>) -> Option<u8> {
    // SAFETY: termios is plain data and filled by tcgetattr.
    let settings = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings)).ok()?;
        settings
    };
    let character = settings.c_cc[libc::VEOF];
    (character != libc::_POSIX_VDISABLE).then_some(character)
}

/// Makes a terminal the controlling one of the calling process, which leads a session without.
pub(crate) fn control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer: do not steal it from another session.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}
