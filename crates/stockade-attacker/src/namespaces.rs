//! Namespaces of one's own, and other people's.

use std::{fs::File, os::fd::AsRawFd as _};

use crate::{
    args::Args,
    sys::{attempt as call, exit, in_child, try_call, wait},
    tell::{Outcome, any, attempt},
};

const CLONE_NEWTIME: i32 = 0x80;

const KINDS: &[(&str, i32)] = &[
    ("user", libc::CLONE_NEWUSER),
    ("mount", libc::CLONE_NEWNS),
    ("net", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", CLONE_NEWTIME),
];

/// Starts a copy of itself by a raw call and ends the copy.
fn cloned(number: i64, args: &[usize]) -> Outcome {
    let pid = try_call(number, args)?;
    if pid == 0 {
        exit(0);
    }
    wait(i32::try_from(pid).unwrap_or(-1));
    Ok(format!("it has a process {pid} in one"))
}

/// Makes one namespace of each kind, by three calls.
pub(crate) fn namespaces(_: &Args) {
    for (name, flag) in KINDS {
        let flag = *flag as usize;
        attempt(
            &format!("unshare.{name}"),
            in_child(|| call(libc::SYS_unshare, &[flag])),
        );
        if *name == "time" {
            // In clone the same bit belongs to the exit signal.
            continue;
        }
        let by_clone = || cloned(libc::SYS_clone, &[flag | libc::SIGCHLD as usize]);
        attempt(&format!("clone.{name}"), in_child(by_clone));
    }
    // struct clone_args (clone(2)): flags first, the exit signal fifth.
    let by_clone3 = || {
        let mut args = [0_u64; 8];
        args[0] = libc::CLONE_NEWUSER as u64;
        args[4] = libc::SIGCHLD as u64;
        cloned(libc::SYS_clone3, &[args.as_ptr() as usize, size_of_val(&args)])
    };
    attempt("clone3.user", in_child(by_clone3));
    let both = || {
        call(libc::SYS_unshare, &[libc::CLONE_NEWUSER as usize])?;
        call(libc::SYS_unshare, &[(libc::CLONE_NEWNS | libc::CLONE_NEWNET) as usize])
    };
    attempt("unshare.user-then-all", in_child(both));
}

/// Enters namespaces that are there: those of pid 1, of itself, and of every process that shows.
pub(crate) fn enter(_: &Args) {
    for kind in ["net", "mnt", "uts", "ipc", "cgroup", "pid"] {
        let outcome = crate::sys::pids().into_iter().map(|pid| -> Outcome {
            let file = File::open(format!("/proc/{pid}/ns/{kind}"))?;
            let fd = usize::try_from(file.as_raw_fd()).unwrap_or(usize::MAX);
            in_child(|| call(libc::SYS_setns, &[fd, 0]))
        });
        any(&format!("setns.{kind}"), outcome);
    }
    let by_pidfd = crate::sys::pids().into_iter().map(|pid| -> Outcome {
        let pidfd = try_call(libc::SYS_pidfd_open, &[usize::try_from(pid).unwrap_or(0), 0])?;
        let flags = (libc::CLONE_NEWNET | libc::CLONE_NEWUTS) as usize;
        let entered = in_child(|| call(libc::SYS_setns, &[pidfd, flags]));
        drop(crate::sys::owned(pidfd));
        entered
    });
    any("setns.pidfd", by_pidfd);
}
