//! The sandbox's first process, from its namespaces to the Guest.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid},
};

use super::{
    confine, explain, rootfs,
    seats::Seats,
    sources::{Sources, Wanted},
    userns::INSIDE,
    wire::{self, LaunchSpec, Report},
};
use crate::{
    boundary,
    cgroup::CgroupDir,
    failure::{Failure, Step},
    filter::{self, Filters},
};

/// What the first process is given.
pub(super) struct Child<'l> {
    pub(super) spec: &'l LaunchSpec,
    pub(super) host: BorrowedFd<'l>,
    /// The launcher's pidfd.
    pub(super) launcher: OwnedFd,
    /// One byte arrives when the ids are in place and one when the cgroups have their limits;
    /// end of file means give up.
    pub(super) go: OwnedFd,
    pub(super) guest: OwnedFd,
    pub(super) guest_in: OwnedFd,
    pub(super) guest_out: OwnedFd,
    pub(super) filters: &'l Filters,
    /// Opened by the launcher when it is root.
    pub(super) sources: Option<Sources>,
    pub(super) seats: Seats,
    pub(super) root: bool,
}

impl Child<'_> {
    /// Becomes the Guest. Returns only when a step failed, after reporting it.
    pub(super) fn run(self) -> i32 {
        // Its place is taken by the Guest's own standard input.
        let Ok(host) = self.host.try_clone_to_owned() else {
            return 1;
        };
        let Err(failure) = self.become_guest(host.as_fd());
        let _ = wire::send(host.as_fd(), &Report::Failed(failure), &[]);
        1
    }

    fn become_guest(mut self, host: BorrowedFd<'_>) -> Result<std::convert::Infallible, Failure> {
        let mut go = File::from(self.go);
        wait_for_launcher(&mut go)?;
        take_identity(self.root)?;
        confine::die_with_parent().step("tie the sandbox to its launcher")?;
        confine::leave_keyring();
        sethostname("sandbox").map_err(|e| explain::first_mount("name the sandbox's host", e))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|e| explain::first_mount("make the mounts private", e))?;
        let sockets = boundary::prepare()?;
        let sources = match self.sources.take() {
            Some(sources) => sources,
            None => Sources::open(&Wanted::by_spec(self.spec))?,
        };
        let layer = rootfs::build(self.spec, sources)?;
        let user = File::open("/proc/self/ns/user").step("open the user namespace")?;
        // What was made so far is the launcher's memory; what comes is the sandbox's.
        wait_for_launcher(&mut go)?;
        self.seats.take()?;
        unshare(CloneFlags::CLONE_NEWCGROUP).step("make a cgroup namespace")?;
        let counted = |group: &CgroupDir| group.settings.iter().any(|setting| setting.file == "pids.max");
        confine::limit_processes(self.spec.pids, self.spec.cgroups.iter().any(counted))?;
        standard_descriptors(&self.guest_in, &self.guest_out)?;
        confine::drop_privileges()?;
        filter::install(self.filters)?;
        let mut fds = vec![self.launcher.as_raw_fd(), layer.as_raw_fd(), user.as_raw_fd()];
        fds.extend([sockets.tcp4.as_raw_fd(), sockets.dns4.as_raw_fd()]);
        if let Some((tcp6, dns6)) = &sockets.v6 {
            fds.extend([tcp6.as_raw_fd(), dns6.as_raw_fd()]);
        }
        wire::send(host, &Report::Ready, &fds).step("hand over the boundary")?;
        let settled = !self.spec.warm;
        Err(Failure::new("start the Guest", exec(self.guest.as_raw_fd(), settled)))
    }
}

fn wait_for_launcher(go: &mut File) -> Result<(), Failure> {
    go.read_exact(&mut [0]).step("wait for the launcher")
}

/// Becomes the one user there is inside. Needed as root only: the rootless sandbox is
/// that user from the start.
pub(super) fn take_identity(root: bool) -> Result<(), Failure> {
    let step = "become the sandbox's user";
    let (uid, gid) = (Uid::from_raw(INSIDE.0), Gid::from_raw(INSIDE.1));
    if root {
        setgroups(&[]).step(step)?;
    }
    setresgid(gid, gid, gid).step(step)?;
    setresuid(uid, uid, uid).step(step)
}

fn standard_descriptors(input: &OwnedFd, output: &OwnedFd) -> Result<(), Failure> {
    let step = "connect the Guest";
    let null = File::options().read(true).write(true).open("/dev/null").step(step)?;
    let plan = [(input.as_raw_fd(), 0), (output.as_raw_fd(), 1), (null.as_raw_fd(), 2)];
    for (from, to) in plan {
        duplicate(from, to).step(step)?;
    }
    // Everything else is close-on-exec already; this makes it certain.
    // SAFETY: marks descriptors, closes none.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 {
        return Err(Failure::new(step, io::Error::last_os_error()));
    }
    Ok(())
}

fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 on descriptor numbers; `from` is above 2 because 0 to 2 were open before it.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Executes the Guest from its descriptor, with no environment. `settled` means that no mount
/// will be added.
fn exec(guest: RawFd, settled: bool) -> io::Error {
    let word = if settled { c"settled".as_ptr() } else { std::ptr::null() };
    let argv = [c"stockade-guest".as_ptr(), word, std::ptr::null()];
    let env = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both arrays end with null and point to static text.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            guest,
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
