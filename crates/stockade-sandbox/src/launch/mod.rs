//! The launcher: a process of one thread between the host process and one sandbox.
//!
//! It makes the namespaces (only a single-threaded process may), waits, and at the end,
//! whoever caused it, removes what the sandbox left. Its standard input is the socket to
//! the host process and the lifeline at the same time.

mod child;
mod confine;
mod explain;
mod mountapi;
mod netlink;
mod network;
mod nft;
mod rootfs;
mod seccomp;
mod sources;
mod userns;
pub(crate) mod wire;

use std::{
    fs,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        stat::{Mode, umask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, chdir, getegid, geteuid, pipe2, setsid},
};

use self::{
    child::Child,
    sources::Sources,
    userns::{Cloned, INSIDE, SANDBOX_NAMESPACES, Slot},
    wire::{LaunchSpec, Report},
};
use crate::{
    failure::{Failure, Step},
    owner,
};

/// Runs the launcher on standard input; its result is the process's exit code.
///
/// The host binary calls this from its hidden subcommand before it starts any thread.
#[must_use]
pub fn launcher_main() -> i32 {
    let stdin = io::stdin();
    let host = stdin.as_fd();
    // Away from the terminal's signals: the host process decides when a sandbox ends.
    let _ = setsid();
    let _ = chdir("/");
    umask(Mode::from_bits_truncate(0o022));
    let (spec, fds) = match wire::receive::<LaunchSpec>(host) {
        Ok(Some(message)) => message,
        Ok(None) => return 1,
        Err(e) => {
            let failure = Failure::new("read the launcher's orders", e);
            let _ = wire::send(host, &Report::Failed(failure), &[]);
            return 1;
        }
    };
    let outcome = launch(host, &spec, fds);
    let code = i32::from(outcome.is_err());
    let reason = match outcome {
        Ok(reason) => reason,
        Err(failure) => {
            let reason = format!("{}: {}", failure.step, failure.cause);
            let _ = wire::send(host, &Report::Failed(failure), &[]);
            reason
        }
    };
    let left = clean(&spec).err().map(|e| format!("; {}: {}", e.step, e.cause));
    let ended = Report::Ended(reason + &left.unwrap_or_default());
    let _ = wire::send(host, &ended, &[]);
    code
}

/// Removes what a sandbox leaves on the host.
pub(crate) fn clean(spec: &LaunchSpec) -> Result<(), Failure> {
    for group in &spec.cgroups {
        group.remove().step("remove a cgroup")?;
    }
    match fs::remove_dir_all(&spec.dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::new("remove the sandbox's directory", e)),
        _ => Ok(()),
    }
}

fn launch(host: BorrowedFd<'_>, spec: &LaunchSpec, fds: Vec<OwnedFd>) -> Result<String, Failure> {
    let Ok([guest, guest_in, guest_out]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(Failure::new("read the launcher's orders", "descriptors are missing"));
    };
    let root = geteuid().is_root();
    explain::hopeless(root)?;
    let slot = root.then(Slot::reserve).transpose()?;
    owner::record_launcher(&spec.dir).step("record the launcher")?;
    for group in &spec.cgroups {
        group.create()?;
    }
    let sources = match &slot {
        Some(slot) => Some(Sources::open_for(spec, slot.uid)?),
        None => None,
    };
    let (go_read, go) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a pipe")?;
    let child = Child {
        spec: spec.clone(),
        host: host.try_clone_to_owned().step("keep the host's socket")?,
        go: go_read,
        guest,
        guest_in,
        guest_out,
        filters: seccomp::compile()?,
        sources,
        root,
    };
    match userns::clone(SANDBOX_NAMESPACES).map_err(|e| explain::no_namespaces(&e))? {
        Cloned::Child => {
            drop(go);
            std::process::exit(child.run())
        }
        Cloned::Parent { pid, pidfd } => {
            // Its pipes must close when the Guest dies, and not when we do.
            drop(child);
            let outside = match &slot {
                Some(slot) => (slot.uid, slot.uid),
                None => (geteuid().as_raw(), getegid().as_raw()),
            };
            let released = release(spec, pid, outside, root, go);
            if released.is_err() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let reason = wait(host, pid, &pidfd)?;
            released.map(|()| reason)
        }
    }
}

/// Gives the first process its ids, its cgroup and the word to go on.
fn release(spec: &LaunchSpec, pid: i32, outside: (u32, u32), root: bool, go: OwnedFd) -> Result<(), Failure> {
    userns::map(pid, INSIDE, outside, root).map_err(|e| explain::no_mapping(root, &e))?;
    // When memory runs out the sandbox goes before anything of the host.
    fs::write(format!("/proc/{pid}/oom_score_adj"), "500").step("mark the sandbox for the OOM killer")?;
    for group in &spec.cgroups {
        group.add(pid)?;
    }
    fs::File::from(go).write_all(b"g").step("start the sandbox")
}

/// Waits until the sandbox has ended, or ends it when the host process is done with it
/// or dead. Says which.
fn wait(host: BorrowedFd<'_>, pid: i32, pidfd: &OwnedFd) -> Result<String, Failure> {
    let child = Pid::from_raw(pid);
    let mut reason = None;
    loop {
        let mut fds = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(host, PollFlags::POLLIN),
        ];
        // After the kill only the process matters; the socket would be ready for ever.
        let watched = if reason.is_some() { &mut fds[..1] } else { &mut fds[..] };
        match poll(watched, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.step("wait for the sandbox")?,
        };
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        if ready(&fds[0]) {
            let status = waitpid(child, None).step("wait for the sandbox")?;
            return Ok(reason.unwrap_or_else(|| describe(status)));
        }
        if reason.is_none() && ready(&fds[1]) {
            let _ = kill(child, Signal::SIGKILL);
            reason = Some("it was destroyed".to_owned());
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("its Guest ended with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("its Guest was ended by {signal}"),
        other => format!("its Guest ended: {other:?}"),
    }
}
