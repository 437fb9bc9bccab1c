//! Binding a warm sandbox to its run: the mounts that only the run can name.
//!
//! A sandbox that waits for its run holds no privilege: its Guest has given up everything, as in
//! any other, and is the only process in it. The mounts are made by the stager, a process that
//! the launcher forks on the host's side and that waits for the claim. Then it opens the host's
//! directories, enters the sandbox's user and mount namespaces from outside (never its process
//! namespace, so nothing inside can see or reach it), attaches them, unmounts the place they
//! were prepared in, and exits; the launcher tells the host only after it has been reaped. So
//! at no moment is there a privileged process in a sandbox that an agent may use, and there is
//! nothing in the sandbox that could ask for a second staging: the launcher drops the namespaces'
//! descriptors with the first.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, pipe2},
};

use super::{
    child::take_identity,
    confine, rootfs,
    sources::{Sources, Wanted},
    userns::{self, Cloned, Slot},
    wire::{Claim, LaunchSpec},
};
use crate::failure::{Failure, Step};

/// The ways into a sandbox that waits for its run.
pub(super) struct Ways {
    user: File,
    mounts: File,
    /// The sandbox's uid on the host, when the launcher is root.
    uid: Option<u32>,
}

/// A stager that waits for the claim: what it takes to make one is paid before anybody waits.
pub(super) struct Stager {
    pid: i32,
    pidfd: OwnedFd,
    claim: File,
    report: File,
}

impl Ways {
    /// For the first process of a new sandbox, before it becomes the Guest.
    pub(super) fn open(pid: i32, slot: Option<&Slot>) -> Result<Self, Failure> {
        let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}")).step("keep the way into the sandbox");
        Ok(Self {
            user: open("user")?,
            mounts: open("mnt")?,
            uid: slot.map(|slot| slot.uid),
        })
    }

    /// Forks the stager, which lives no longer than the caller.
    pub(super) fn start(self, spec: &LaunchSpec) -> Result<Stager, Failure> {
        let step = "start the stager";
        let (claim_read, claim) = pipe2(OFlag::O_CLOEXEC).step(step)?;
        let (report, report_write) = pipe2(OFlag::O_CLOEXEC).step(step)?;
        match userns::clone(0).step(step)? {
            Cloned::Child => {
                let told = self.wait_and_stage(spec, claim_read, report_write);
                // SAFETY: ends the process, without what the launcher registered for its end.
                unsafe { libc::_exit(i32::from(told.is_none())) }
            }
            Cloned::Parent { pid, pidfd } => Ok(Stager {
                pid,
                pidfd,
                claim: claim.into(),
                report: report.into(),
            }),
        }
    }

    /// Does what the claim says and reports. Nothing is done when the launcher ends or lets go.
    fn wait_and_stage(self, spec: &LaunchSpec, claim: OwnedFd, report: OwnedFd) -> Option<()> {
        confine::die_with_parent().ok()?;
        // The launcher's lifeline and the like must not live on here.
        let mine = [&claim, &report].map(AsRawFd::as_raw_fd);
        close_all_but([mine[0], mine[1], self.user.as_raw_fd(), self.mounts.as_raw_fd()]);
        let mut text = Vec::new();
        File::from(claim).read_to_end(&mut text).ok()?;
        let claim = serde_json::from_slice::<Claim>(&text).ok()?;
        let done = self.stage(spec, &claim);
        let text = serde_json::to_vec(&done).ok()?;
        File::from(report).write_all(&text).ok()
    }

    fn stage(self, spec: &LaunchSpec, claim: &Claim) -> Result<(), Failure> {
        let step = "enter the sandbox";
        let wanted = Wanted::by_claim(claim, &spec.dir);
        let as_root = self.uid.map(|uid| Sources::open_for(&wanted, uid)).transpose()?;
        setns(&self.user, CloneFlags::CLONE_NEWUSER).step(step)?;
        let sources = match as_root {
            Some(sources) => sources,
            None => {
                // A view of the host in which the sandbox's own rights suffice to take mounts.
                unshare(CloneFlags::CLONE_NEWNS).step(step)?;
                Sources::open(&wanted)?
            }
        };
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).step(step)?;
        take_identity(self.uid.is_some())?;
        // A change of identity makes the kernel forget it.
        confine::die_with_parent().step(step)?;
        rootfs::complete(sources, claim.disk_bytes, spec.copy_workspace)
    }
}

impl Stager {
    /// Has the claim's mounts made and waits for the stager's end. Gives up when the host or the
    /// Guest does.
    pub(super) fn carry_out(self, claim: &Claim, host: BorrowedFd<'_>, guest: BorrowedFd<'_>) -> Result<(), Failure> {
        let step = "bind the sandbox to its run";
        let Self {
            pid,
            pidfd,
            claim: mut to,
            report: mut from,
        } = self;
        let text = serde_json::to_vec(claim).step(step)?;
        // One that is gone says so by its report.
        let _ = to.write_all(&text);
        drop(to);
        wait(pid, &pidfd, host, guest)?;
        let mut report = Vec::new();
        from.read_to_end(&mut report).step(step)?;
        let done = serde_json::from_slice::<Result<(), Failure>>(&report);
        done.unwrap_or_else(|_| Err(Failure::new(step, "the stager was killed")))
    }
}

/// Closes every descriptor but these.
fn close_all_but(mut kept: [RawFd; 4]) {
    kept.sort_unstable();
    let mut first = 0u32;
    let close = |from: u32, to: u32| {
        if from <= to {
            // SAFETY: closes descriptors nobody uses any more; the process has one thread.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    for fd in kept.map(i32::unsigned_abs) {
        if fd > 0 {
            close(first, fd - 1);
        }
        first = fd + 1;
    }
    close(first, u32::MAX);
}

/// Waits for the stager's end and ends it early when nobody needs its work any more.
fn wait(pid: i32, stager: &OwnedFd, host: BorrowedFd<'_>, guest: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = "wait for the stager";
    let stager_pid = Pid::from_raw(pid);
    loop {
        let mut fds = [stager.as_fd(), host, guest].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.step(step)?,
        };
        if !fds[0].any().unwrap_or(true) {
            let _ = kill(stager_pid, Signal::SIGKILL);
        }
        return waitpid(stager_pid, None).step(step).map(drop);
    }
}
