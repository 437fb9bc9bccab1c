//! User namespaces: the sandbox's own, and one that only carries a mapping for mounts.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::{
    INSIDE_ID,
    failure::{Failure, Step},
};
use std::os::fd::AsRawFd;

/// First of the host uids that sandboxes run under when the host process is root.
const FIRST_SLOT: u32 = 1_879_100_000;
/// How many there are, and so how many sandboxes one host can hold.
const SLOTS: u32 = 65_536;

/// Everything but the cgroup namespace, which is made once the process is in its cgroup.
pub(super) const SANDBOX_NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone we are on.
pub(super) enum Cloned {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Forks into new namespaces. The caller must have one thread only.
pub(super) fn clone(namespaces: libc::c_int) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child has its
    // own copy of everything. The kernel writes the pidfd through the third argument.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            std::ptr::null_mut::<libc::c_int>(),
            0,
        )
    };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel made this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks into new namespaces and a cgroup of version 2 (clone3, `CLONE_INTO_CGROUP`).
pub(super) fn clone_into(namespaces: libc::c_int, cgroup: RawFd) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let number = |value: RawFd| u64::from(value.unsigned_abs());
    // struct clone_args of clone(2), all fields of Linux 5.7.
    let args: [u64; 11] = [
        number(namespaces) | number(libc::CLONE_PIDFD) | CLONE_INTO_CGROUP,
        std::ptr::from_mut(&mut pidfd).addr() as u64,
        0,
        0,
        number(libc::SIGCHLD),
        0,
        0,
        0,
        0,
        0,
        number(cgroup),
    ];
    // SAFETY: without CLONE_VM and a stack this is fork(2). The kernel writes the pidfd to where
    // the second word points, which outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel made this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Maps one id inside to one outside, for users and groups.
pub(super) fn map(pid: i32, inside: (u32, u32), outside: (u32, u32), may_set_groups: bool) -> io::Result<()> {
    if !may_set_groups {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(
        format!("/proc/{pid}/uid_map"),
        format!("{} {} 1\n", inside.0, outside.0),
    )?;
    fs::write(
        format!("/proc/{pid}/gid_map"),
        format!("{} {} 1\n", inside.1, outside.1),
    )
}

/// A host uid that no other live sandbox of this host has, and what keeps it so.
pub(crate) struct Slot {
    pub(crate) uid: u32,
    _reservation: OwnedFd,
}

impl Slot {
    /// Reserves a uid. The reservation is an abstract socket name: the kernel gives it
    /// to one process at a time and takes it back however that process ends.
    pub(crate) fn reserve() -> Result<Self, Failure> {
        let step = "reserve a uid for the sandbox";
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).step(step)?;
        // Not all from the same end: a thousand sandboxes would each try a thousand names.
        let first = std::process::id().wrapping_mul(7);
        for turn in 0..SLOTS {
            let uid = FIRST_SLOT + first.wrapping_add(turn) % SLOTS;
            let name = format!("stockade/uid/{uid}");
            let address = UnixAddr::new_abstract(name.as_bytes()).step(step)?;
            match bind(socket.as_raw_fd(), &address) {
                Ok(()) => {
                    return Ok(Self {
                        uid,
                        _reservation: socket,
                    });
                }
                Err(nix::errno::Errno::EADDRINUSE) => {}
                Err(e) => return Err(Failure::new(step, e)),
            }
        }
        Err(Failure::new(step, format!("all {SLOTS} are in use")))
    }
}

/// A user namespace whose only use is its mapping: files of `owner` appear as `shown`.
pub(crate) fn mapping_namespace(owner: (u32, u32), shown: u32) -> io::Result<OwnedFd> {
    match clone(libc::CLONE_NEWUSER)? {
        Cloned::Child => loop {
            // SAFETY: waits to be killed; the parent needs this process for its namespace only.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::pause();
            }
        },
        Cloned::Parent { pid, .. } => {
            let namespace =
                map(pid, owner, (shown, shown), true).and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
            let child = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(namespace?.into())
        }
    }
}

/// The sandbox's identity inside.
pub(super) const INSIDE: (u32, u32) = (INSIDE_ID, INSIDE_ID);
