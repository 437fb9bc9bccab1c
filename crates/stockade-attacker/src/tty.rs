//! Putting words into a terminal's mouth.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use crate::{
    args::Args,
    sys::{at, attempt_or, c, in_child, try_call},
    tell::{Outcome, attempt, refused},
};

const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTN: usize = 0x8004_5430;
const TIOCSCTTY: usize = 0x540e;
const TIOCSTI: usize = 0x5412;
const TIOCLINUX: usize = 0x541c;

fn ioctl(file: &File, request: usize, argument: usize) -> Result<usize, i32> {
    let fd = usize::try_from(file.as_raw_fd()).unwrap_or(usize::MAX);
    try_call(libc::SYS_ioctl, &[fd, request, argument])
}

/// A new terminal of the attacker's own: both sides, the inner one controlling.
fn terminal() -> Result<(File, File), crate::tell::Refusal> {
    // The terminal's end must not be the attacker's.
    crate::sys::ignore(libc::SIGHUP);
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let open = |path: &str| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let master = open("/dev/ptmx")?;
    let unlock = 0_u32;
    let mut number = 0_u32;
    ioctl(&master, TIOCSPTLCK, &raw const unlock as usize)?;
    ioctl(&master, TIOCGPTN, &raw mut number as usize)?;
    let slave = open(&format!("/dev/pts/{}", number))?;
    try_call(libc::SYS_setsid, &[])?;
    ioctl(&slave, TIOCSCTTY, 0)?;
    Ok((master, slave))
}

/// Types into its own terminal as if somebody else had, the way escapes from `su` and
/// containers do, and asks the console for its clipboard.
pub(crate) fn inject(_: &Args) {
    attempt(
        "TIOCSTI",
        in_child(|| -> Outcome {
            let (_master, mut slave) = terminal()?;
            for letter in *b"x\n" {
                ioctl(&slave, TIOCSTI, &raw const letter as usize)?;
            }
            let mut typed = [0; 8];
            let length = slave.read(&mut typed)?;
            if typed[..length].contains(&b'x') {
                Ok("typed into the terminal".to_owned())
            } else {
                refused("nothing was typed")
            }
        }),
    );
    attempt(
        "TIOCLINUX",
        in_child(|| {
            let (_master, slave) = terminal()?;
            let paste = 3_u8;
            let fd = usize::try_from(slave.as_raw_fd()).unwrap_or(usize::MAX);
            let args = [fd, TIOCLINUX, &raw const paste as usize];
            // A pseudo-terminal has no clipboard; it says so when it is asked.
            attempt_or(libc::SYS_ioctl, &args, &[libc::ENOTTY, libc::EINVAL])
        }),
    );
    let here = libc::AT_FDCWD as isize as usize;
    let console = c("/dev/tty");
    let opened = try_call(libc::SYS_openat, &[here, at(&console), libc::O_RDWR as usize]);
    if let Ok(fd) = opened {
        drop(crate::sys::owned(fd));
    }
    attempt(
        "host-terminal",
        match opened {
            Ok(_) => Ok("it has a controlling terminal it was not given".to_owned()),
            Err(errno) => Err(errno.into()),
        },
    );
}
