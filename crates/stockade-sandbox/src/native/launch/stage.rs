//! Binding a warm sandbox to its run: the mounts that only the run can name.
//!
//! A sandbox that waits for its run holds no privilege: its Guest has given up everything, as in
//! any other, and is the only process in it. The mounts are made by the stager, a process that
//! the launcher forks on the host's side when the run claims the sandbox. It opens the host's
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
    os::fd::{AsFd, BorrowedFd, OwnedFd},
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
pub(super) struct Stager {
    user: File,
    mounts: File,
    /// The sandbox's uid on the host, when the launcher is root.
    uid: Option<u32>,
}

impl Stager {
    /// For the first process of a new sandbox, before it becomes the Guest.
    pub(super) fn new(pid: i32, slot: Option<&Slot>) -> Result<Self, Failure> {
        let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}")).step("keep the way into the sandbox");
        Ok(Self {
            user: open("user")?,
            mounts: open("mnt")?,
            uid: slot.map(|slot| slot.uid),
        })
    }

    /// Makes the claim's mounts in a process of their own and waits for its end. Gives up when
    /// the host or the Guest does.
    pub(super) fn carry_out(
        self,
        spec: &LaunchSpec,
        claim: &Claim,
        host: BorrowedFd<'_>,
        guest: BorrowedFd<'_>,
    ) -> Result<(), Failure> {
        let step = "start the stager";
        let (read, write) = pipe2(OFlag::O_CLOEXEC).step(step)?;
        match userns::clone(0).step(step)? {
            Cloned::Child => {
                drop(read);
                let done = self.stage(spec, claim);
                let report = serde_json::to_vec(&done).unwrap_or_default();
                let told = File::from(write).write_all(&report);
                // SAFETY: ends the process, without what the launcher registered for its end.
                unsafe { libc::_exit(i32::from(told.is_err())) }
            }
            Cloned::Parent { pid, pidfd } => {
                drop((write, self));
                wait(pid, &pidfd, host, guest)?;
                let mut report = Vec::new();
                File::from(read).read_to_end(&mut report).step(step)?;
                let done = serde_json::from_slice::<Result<(), Failure>>(&report);
                done.unwrap_or_else(|_| Err(Failure::new("bind the sandbox to its run", "the stager was killed")))
            }
        }
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
        confine::die_with_parent().step(step)?;
        rootfs::complete(sources, claim.disk_bytes, spec.copy_workspace)
    }
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
