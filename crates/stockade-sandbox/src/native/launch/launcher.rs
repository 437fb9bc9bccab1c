//! The launcher of one sandbox: makes its namespaces, waits, and at the end, whoever caused it,
//! removes what the sandbox left. Its standard input is the lifeline.

use std::{
    fs,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, getegid, geteuid, pipe2},
};

use super::{
    child::Child,
    explain,
    seats::Seats,
    sources::{Sources, Wanted},
    stage::{Stager, Ways},
    userns::{self, Cloned, INSIDE, SANDBOX_NAMESPACES, Slot},
    wire::{self, Claim, LaunchSpec, Report},
};
use crate::{
    cgroup::{self, OomWatch},
    failure::{Failure, Step},
    filter::Filters,
    owner,
};

/// Holds one sandbox until its end; the result is the process's exit code. `fds` are the Guest's
/// program, its standard input and its standard output.
pub(super) fn run(host: BorrowedFd<'_>, spec: &LaunchSpec, fds: Vec<OwnedFd>, filters: &Filters) -> i32 {
    let outcome = launch(host, spec, fds, filters);
    let code = i32::from(outcome.is_err());
    let reason = match outcome {
        Ok(reason) => reason,
        Err(failure) => {
            let reason = format!("{}: {}", failure.step, failure.cause);
            let _ = wire::send(host, &Report::Failed(failure), &[]);
            reason
        }
    };
    let left = clean(spec).err().map(|e| format!("; {}: {}", e.step, e.cause));
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

fn launch(host: BorrowedFd<'_>, spec: &LaunchSpec, fds: Vec<OwnedFd>, filters: &Filters) -> Result<String, Failure> {
    let Ok([guest, guest_in, guest_out]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(Failure::new("read the launcher's orders", "descriptors are missing"));
    };
    let root = geteuid().is_root();
    let slot = root.then(Slot::reserve).transpose()?;
    let mut seats = Seats::make(&spec.cgroups)?;
    let sources = match &slot {
        Some(slot) => Some(Sources::open_for(&Wanted::by_spec(spec), slot.uid)?),
        None => None,
    };
    let (go_read, go) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a pipe")?;
    let launcher = own_pidfd().step("make a pidfd")?;
    let cloned = seats.clone(&spec.cgroups, SANDBOX_NAMESPACES);
    match cloned.map_err(|e| explain::no_namespaces(&e))? {
        Cloned::Child => {
            drop(go);
            let child = Child {
                spec,
                host,
                launcher,
                go: go_read,
                guest,
                guest_in,
                guest_out,
                filters,
                sources,
                seats,
                root,
            };
            std::process::exit(child.run())
        }
        Cloned::Parent { pid, pidfd } => {
            // Its pipes must close when the Guest dies, and not when we do.
            drop((guest, guest_in, guest_out, go_read, sources, launcher));
            let outside = match &slot {
                Some(slot) => (slot.uid, slot.uid),
                None => (geteuid().as_raw(), getegid().as_raw()),
            };
            let ways = spec.warm.then(|| Ways::open(pid, slot.as_ref())).transpose();
            let released = ways.and_then(|ways| {
                release(spec, pid, outside, root, go, &seats)?;
                drop(seats);
                ways.map(|ways| ways.start(spec)).transpose()
            });
            if released.is_err() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let (stager, released) = match released {
                Ok(stager) => (stager, Ok(())),
                Err(failure) => (None, Err(failure)),
            };
            let reason = wait(host, pid, &pidfd, spec, stager)?;
            released.map(|()| reason)
        }
    }
}

/// Gives the first process its ids, the word to go on, its cgroup's limits, and the last word.
fn release(
    spec: &LaunchSpec,
    pid: i32,
    outside: (u32, u32),
    root: bool,
    go: OwnedFd,
    seats: &Seats,
) -> Result<(), Failure> {
    let mut go = fs::File::from(go);
    userns::map(pid, INSIDE, outside, root).map_err(|e| explain::no_mapping(root, &e))?;
    go.write_all(b"g").step("start the sandbox")?;
    // The first process builds its file system meanwhile.
    seats.limit(&spec.cgroups, pid)?;
    // When memory runs out the sandbox goes before anything of the host.
    fs::write(format!("/proc/{pid}/oom_score_adj"), "500").step("mark the sandbox for the OOM killer")?;
    owner::record_launcher(&spec.dir).step("record the launcher")?;
    go.write_all(b"g").step("start the sandbox")
}

/// Waits until the sandbox has ended, or ends it when the host process is done with it
/// or dead. Says which. Carries out the claim of a warm sandbox on the way.
fn wait(
    host: BorrowedFd<'_>,
    pid: i32,
    pidfd: &OwnedFd,
    spec: &LaunchSpec,
    mut stager: Option<Stager>,
) -> Result<String, Failure> {
    let child = Pid::from_raw(pid);
    let memory = OomWatch::start(&spec.cgroups);
    let mut reason = None;
    loop {
        let mut fds = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(host, PollFlags::POLLIN),
            PollFd::new(memory.as_ref().map_or(host, AsFd::as_fd), PollFlags::POLLIN),
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
            return Ok(reason.unwrap_or_else(|| describe(status, &spec.cgroups)));
        }
        if reason.is_none() && ready(&fds[1]) {
            if claimed(host, pidfd, &mut stager) {
                continue;
            }
            let _ = kill(child, Signal::SIGKILL);
            cgroup::let_die(&spec.cgroups);
            reason = Some("it was destroyed".to_owned());
        } else if memory.as_ref().is_some_and(OomWatch::is_over) {
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}

/// Carries out a claim and reports it. `false` when it was none or failed: the sandbox is to end.
fn claimed(host: BorrowedFd<'_>, guest: &OwnedFd, stager: &mut Option<Stager>) -> bool {
    let Some(stager) = stager.take() else { return false };
    let Ok(Some((claim, _))) = wire::receive::<Claim>(host) else {
        return false;
    };
    match stager.carry_out(&claim, host, guest.as_fd()) {
        Ok(()) => wire::send(host, &Report::Claimed, &[]).is_ok(),
        Err(failure) => {
            let _ = wire::send(host, &Report::Failed(failure), &[]);
            false
        }
    }
}

/// A pidfd of the calling process, for the host to wait on: it is not the host's child.
#[allow(unsafe_code)]
fn own_pidfd() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the result is a new descriptor of ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

fn describe(status: WaitStatus, cgroups: &[cgroup::CgroupDir]) -> String {
    let reason = match status {
        WaitStatus::Exited(_, code) => format!("its Guest ended with code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("its Guest was ended by {signal}"),
        other => format!("its Guest ended: {other:?}"),
    };
    cgroup::epitaph(reason, cgroups)
}
