//! Giving up every privilege, for good.
#![allow(unsafe_code)]

use std::{fs, io};

use nix::sys::resource::{Resource, setrlimit};

use super::sabotage::{self, Sabotage};
use crate::failure::{Failure, Step};

/// Processes the Guest may have beyond what the agent may: keepers that report.
const GUEST_PROCESSES: u64 = 32;
/// SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_NO_CAP_AMBIENT_RAISE, each with its lock.
const SECURE_BITS: libc::c_ulong = 0b1100_1111;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only called with options that take integers.
    check(unsafe { libc::prctl(option, a, b, 0, 0) })
}

/// Kills the calling process when the launcher dies.
pub(super) fn die_with_parent() -> io::Result<()> {
    let signal = libc::c_ulong::try_from(libc::SIGKILL).unwrap_or(9);
    prctl(libc::PR_SET_PDEATHSIG, signal, 0)
}

/// A session keyring of its own, so that nothing of the caller's is in reach.
pub(super) fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name makes an anonymous keyring. Kernels without keyrings fail, and
    // have none to leave.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Per-process limits. The process count holds per user and user namespace, so it bounds
/// the sandbox as a whole even where there is no cgroup (Linux 5.14). Where one is `counted`, it is
/// to be the one that refuses: it tells how often it did, and this limit tells nobody.
pub(super) fn limit_processes(pids: Option<u64>, counted: bool) -> Result<(), Failure> {
    let step = "set resource limits";
    // See the filter on this number.
    setrlimit(Resource::RLIMIT_CORE, 1, 1).step(step)?;
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).step(step)?;
    let files = hard.min(65_536);
    setrlimit(Resource::RLIMIT_NOFILE, files, files).step(step)?;
    let (soft, hard) = match pids {
        Some(pids) => {
            let hard = pids.saturating_add(GUEST_PROCESSES);
            (if counted { hard } else { pids }, hard)
        }
        None => {
            let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NPROC).step(step)?;
            (hard, hard)
        }
    };
    setrlimit(Resource::RLIMIT_NPROC, soft, hard).step(step)
}

/// Clears every capability set, the bounding set included, and forbids regaining any.
pub(super) fn drop_privileges() -> Result<(), Failure> {
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .step("read the number of capabilities")?
        .trim()
        .parse()
        .step("read the number of capabilities")?;
    let step = "drop all capabilities";
    prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0).step(step)?;
    let clear_all = libc::c_ulong::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL).unwrap_or(4);
    prctl(libc::PR_CAP_AMBIENT, clear_all, 0).step(step)?;
    for capability in 0..=last {
        if sabotage::leaves_out(Sabotage::Capabilities) {
            break;
        }
        prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).step(step)?;
    }
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: the layouts of capset(2): a header of two words, two records of three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if result < 0 {
        return Err(Failure::new(step, io::Error::last_os_error()));
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).step("set no_new_privs")
}
