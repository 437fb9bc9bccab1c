//! The zygote: the host program started again once, which forks a launcher for every sandbox.
//!
//! Forking a small process of one thread takes a tenth of a millisecond; starting the host
//! program again for each sandbox takes a whole one, and compiling the system call filter
//! another. The zygote decides nothing, holds no sandbox and waits for nobody: when it is
//! killed, every launcher goes on, and the host process starts another zygote.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    sys::{
        signal::{SigHandler, Signal, signal},
        stat::{Mode, umask},
    },
    unistd::{chdir, geteuid, setsid},
};

use super::{
    explain, launcher, sabotage, snapshot,
    userns::{self, Cloned},
    wire::{self, ArchiveOrder, LaunchSpec, Report},
};
use crate::{
    failure::{Failure, Step},
    filter::{self, Filters},
};

/// Runs the zygote on standard input, and in its children launchers; the result is the
/// process's exit code.
///
/// The host binary calls this from its hidden subcommand before it starts any thread.
#[must_use]
pub fn launcher_main() -> i32 {
    let stdin = io::stdin();
    let host = stdin.as_fd();
    let filters = match prepare() {
        Ok(filters) => filters,
        Err(failure) => {
            let _ = wire::send(host, &Report::Failed(failure), &[]);
            return 1;
        }
    };
    if wire::send(host, &Report::Ready, &[]).is_err() {
        return 1;
    }
    loop {
        match wire::receive_bytes(host) {
            Ok(Some((order, fds))) => {
                if let Some(code) = fork(host, &order, fds, &filters) {
                    return code;
                }
            }
            // The host process has ended or wants no more sandboxes.
            Ok(None) => return 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return 1,
        }
    }
}

/// What all launchers share.
fn prepare() -> Result<Filters, Failure> {
    // Away from the terminal's signals: the host process decides when a sandbox ends.
    let _ = setsid();
    let _ = chdir("/");
    umask(Mode::from_bits_truncate(0o022));
    name(c"stockade-zygote");
    // The kernel reaps the launchers; who wants to know of their end holds a pidfd.
    // SAFETY: no handler of ours is involved.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.step("set up the zygote")?;
    explain::hopeless(geteuid().is_root())?;
    Ok(sabotage::filters(filter::compile()?))
}

/// Makes a launcher. In the launcher, once it is done, returns its exit code.
fn fork(host: BorrowedFd<'_>, order: &[u8], mut fds: Vec<OwnedFd>, filters: &Filters) -> Option<i32> {
    if fds.is_empty() {
        return None;
    }
    let lifeline = fds.remove(0);
    match userns::clone(0) {
        Ok(Cloned::Parent { .. }) => None,
        Ok(Cloned::Child) => Some(become_launcher(host, lifeline, order, fds, filters)),
        Err(e) => {
            let failure = Failure::new("fork the launcher", e);
            let _ = wire::send(lifeline.as_fd(), &Report::Failed(failure), &[]);
            None
        }
    }
}

fn become_launcher(
    zygote: BorrowedFd<'_>,
    lifeline: OwnedFd,
    order: &[u8],
    fds: Vec<OwnedFd>,
    filters: &Filters,
) -> i32 {
    name(c"stockade-launch");
    let _ = setsid();
    // SAFETY: no handler of ours is involved.
    let reset = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    // The lifeline takes the place of the zygote's socket, which only the zygote may hold.
    // SAFETY: dup2 on open descriptors of this process.
    let placed = unsafe { libc::dup2(lifeline.as_raw_fd(), zygote.as_raw_fd()) };
    if reset.is_err() || placed < 0 {
        return 1;
    }
    drop(lifeline);
    if serde_json::from_slice::<ArchiveOrder>(order).is_ok() {
        return snapshot::run(zygote, fds);
    }
    match serde_json::from_slice::<LaunchSpec>(order) {
        Ok(spec) => launcher::run(zygote, &sabotage::orders(spec), fds, filters),
        Err(e) => {
            let failure = Failure::new("read the launcher's orders", e);
            let _ = wire::send(zygote, &Report::Failed(failure), &[]);
            1
        }
    }
}

/// What `ps` shows.
fn name(name: &std::ffi::CStr) {
    // SAFETY: the name is NUL-terminated and copied by the kernel.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}
