//! The kernel surface: how many dangerous calls are answered with anything but a refusal.
//!
//! Every call is made with arguments that a kernel which looks at them answers with EFAULT,
//! EBADF, EINVAL or the like, so that nothing happens even where everything is permitted. A call
//! counts as refused when the answer is "not permitted", "no such call", "no such family" or "no
//! such protocol", or when it ends its process.

use crate::{
    args::Args,
    sys::{alarm, exit, fork, try_call, wait},
    tell::{Outcome, attempt, refused},
};

const REFUSALS: [i32; 5] = [
    libc::EPERM,
    libc::ENOSYS,
    libc::EACCES,
    libc::EAFNOSUPPORT,
    libc::EPROTONOSUPPORT,
];

/// An address no memory is at: below the lowest that can be mapped.
const NOWHERE: usize = 8;
/// A process number above the highest there can be.
const NOBODY: usize = 0x7fff_fff0;
const ALL: usize = usize::MAX;
/// A descriptor that is not open.
const NO_FD: usize = usize::MAX;
const X32: i64 = 0x4000_0000;

/// Calls newer than the libc crate's table; generic numbers, the same on every architecture.
const SYS_MOUNT_SETATTR: i64 = 442;
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_PROCESS_MRELEASE: i64 = 448;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_OPEN_TREE_ATTR: i64 = 467;
const SYS_LISTNS: i64 = 470;

type Line = (&'static str, i64, [usize; 6]);

const fn line(name: &'static str, number: i64, args: &[usize]) -> Line {
    let mut all = [0; 6];
    let mut at = 0;
    while at < args.len() {
        all[at] = args[at];
        at += 1;
    }
    (name, number, all)
}

const fn bit(flag: i32) -> usize {
    flag.cast_unsigned() as usize
}

/// Mounts, roots, quotas, file handles.
const FILES: &[Line] = &[
    line("mount", libc::SYS_mount, &[NOWHERE, NOWHERE, NOWHERE, 0, NOWHERE]),
    line("umount2", libc::SYS_umount2, &[NOWHERE, 0xff00]),
    line("pivot_root", libc::SYS_pivot_root, &[NOWHERE, NOWHERE]),
    line("chroot", libc::SYS_chroot, &[NOWHERE]),
    line("fsopen", libc::SYS_fsopen, &[NOWHERE, 0xff00]),
    line("fsconfig", libc::SYS_fsconfig, &[NO_FD, 99, NOWHERE, NOWHERE, 0]),
    line("fsmount", libc::SYS_fsmount, &[NO_FD, 0xff00, 0]),
    line("fspick", libc::SYS_fspick, &[NO_FD, NOWHERE, 0xff00]),
    line("open_tree", libc::SYS_open_tree, &[NO_FD, NOWHERE, 0x0f00_0000]),
    line(
        "open_tree_attr",
        SYS_OPEN_TREE_ATTR,
        &[NO_FD, NOWHERE, 0x0f00_0000, NOWHERE, 1],
    ),
    line(
        "move_mount",
        libc::SYS_move_mount,
        &[NO_FD, NOWHERE, NO_FD, NOWHERE, 0xff00_0000],
    ),
    line(
        "mount_setattr",
        SYS_MOUNT_SETATTR,
        &[NO_FD, NOWHERE, 0xff00_0000, NOWHERE, 1],
    ),
    line("statmount", SYS_STATMOUNT, &[NOWHERE, NOWHERE, 8, 0xff]),
    line("listmount", SYS_LISTMOUNT, &[NOWHERE, NOWHERE, 8, 0xff00]),
    line("open_by_handle_at", libc::SYS_open_by_handle_at, &[NO_FD, NOWHERE, 0]),
    line(
        "name_to_handle_at",
        libc::SYS_name_to_handle_at,
        &[NO_FD, NOWHERE, NOWHERE, NOWHERE, 0],
    ),
    line("swapon", libc::SYS_swapon, &[NOWHERE, 0x7f00_0000]),
    line("swapoff", libc::SYS_swapoff, &[NOWHERE]),
    line("quotactl", libc::SYS_quotactl, &[0xffff_ff00, NOWHERE, 0, NOWHERE]),
    line("quotactl_fd", SYS_QUOTACTL_FD, &[NO_FD, 0xffff_ff00, 0, NOWHERE]),
    line("fanotify_init", libc::SYS_fanotify_init, &[0xffff_0000, 0]),
    line(
        "fanotify_mark",
        libc::SYS_fanotify_mark,
        &[NO_FD, 0xffff_0000, 0, NO_FD, NOWHERE],
    ),
    line("acct", libc::SYS_acct, &[NOWHERE]),
];

/// Namespaces and other processes.
const PROCESSES: &[Line] = &[
    line("unshare.user", libc::SYS_unshare, &[bit(libc::CLONE_NEWUSER)]),
    line("unshare.mount", libc::SYS_unshare, &[bit(libc::CLONE_NEWNS)]),
    line("unshare.net", libc::SYS_unshare, &[bit(libc::CLONE_NEWNET)]),
    line("unshare.pid", libc::SYS_unshare, &[bit(libc::CLONE_NEWPID)]),
    line("unshare.cgroup", libc::SYS_unshare, &[bit(libc::CLONE_NEWCGROUP)]),
    line("unshare.time", libc::SYS_unshare, &[0x80]),
    // New user namespaces cannot share the file system's root: a contradiction the kernel sees.
    line(
        "clone.user",
        libc::SYS_clone,
        &[bit(libc::CLONE_NEWUSER | libc::CLONE_FS)],
    ),
    line(
        "clone.net",
        libc::SYS_clone,
        &[bit(libc::CLONE_NEWNET | libc::CLONE_SIGHAND)],
    ),
    line("clone3", libc::SYS_clone3, &[NOWHERE, 1]),
    line("setns", libc::SYS_setns, &[NO_FD, 0]),
    line("listns", SYS_LISTNS, &[NOWHERE, NOWHERE, 8, 0xff00]),
    line("ptrace", libc::SYS_ptrace, &[0x4206, NOBODY, 0, 0]),
    line(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[NOBODY, NOWHERE, 1, NOWHERE, 1, 1],
    ),
    line(
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        &[NOBODY, NOWHERE, 1, NOWHERE, 1, 1],
    ),
    line("process_madvise", libc::SYS_process_madvise, &[NO_FD, NOWHERE, 1, 0, 0]),
    line("process_mrelease", SYS_PROCESS_MRELEASE, &[NO_FD, 0]),
    line("pidfd_getfd", libc::SYS_pidfd_getfd, &[NO_FD, 0, 0]),
    line("kcmp", libc::SYS_kcmp, &[NOBODY, NOBODY, 99, 0, 0]),
    line(
        "move_pages",
        libc::SYS_move_pages,
        &[NOBODY, 1, NOWHERE, NOWHERE, NOWHERE, 0xff00],
    ),
    line("migrate_pages", libc::SYS_migrate_pages, &[NOBODY, 1, NOWHERE, NOWHERE]),
    line("mbind", libc::SYS_mbind, &[NOWHERE, 1, 99, 0, 0, 0]),
    line("set_mempolicy", libc::SYS_set_mempolicy, &[99, NOWHERE, 0]),
    line(
        "get_mempolicy",
        libc::SYS_get_mempolicy,
        &[NOWHERE, NOWHERE, 1, 0, 0xff00],
    ),
    line("personality", libc::SYS_personality, &[6]),
];

/// The kernel itself, the machine, keys, clocks, names.
const KERNEL: &[Line] = &[
    line("bpf", libc::SYS_bpf, &[0, NOWHERE, 16]),
    line(
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[NOWHERE, 0, ALL, ALL, 0xff00],
    ),
    line("userfaultfd", libc::SYS_userfaultfd, &[0x7f00_0000]),
    line("io_uring_setup", libc::SYS_io_uring_setup, &[0, NOWHERE]),
    line("io_uring_enter", libc::SYS_io_uring_enter, &[NO_FD, 0, 0, 0, 0, 0]),
    line(
        "io_uring_register",
        libc::SYS_io_uring_register,
        &[NO_FD, 99, NOWHERE, 0],
    ),
    line("init_module", libc::SYS_init_module, &[NOWHERE, 0, NOWHERE]),
    line("finit_module", libc::SYS_finit_module, &[NO_FD, NOWHERE, 0xff00]),
    line("delete_module", libc::SYS_delete_module, &[NOWHERE, 0]),
    line("kexec_load", libc::SYS_kexec_load, &[0, 99_999, NOWHERE, 0]),
    line(
        "kexec_file_load",
        libc::SYS_kexec_file_load,
        &[NO_FD, NO_FD, 0, NOWHERE, 0xff00],
    ),
    // Without the magic numbers it is an invalid argument, whoever asks.
    line("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
    line("syslog", libc::SYS_syslog, &[99, 0, 0]),
    line("add_key", libc::SYS_add_key, &[NOWHERE, NOWHERE, 0, 0, 0]),
    line("request_key", libc::SYS_request_key, &[NOWHERE, NOWHERE, 0, 0]),
    line("keyctl", libc::SYS_keyctl, &[9999, 0, 0, 0, 0]),
    line("settimeofday", libc::SYS_settimeofday, &[NOWHERE, 0]),
    line("clock_settime", libc::SYS_clock_settime, &[0, NOWHERE]),
    line("clock_adjtime", libc::SYS_clock_adjtime, &[0, NOWHERE]),
    line("adjtimex", libc::SYS_adjtimex, &[NOWHERE]),
    line("sethostname", libc::SYS_sethostname, &[NOWHERE, 0x7fff_ffff]),
    line("setdomainname", libc::SYS_setdomainname, &[NOWHERE, 0x7fff_ffff]),
    line("tiocsti", libc::SYS_ioctl, &[NO_FD, 0x5412, NOWHERE]),
    line("tioclinux", libc::SYS_ioctl, &[NO_FD, 0x541c, NOWHERE]),
];

/// Calls of one architecture, and the doors that lead past its numbers.
#[cfg(target_arch = "x86_64")]
const MACHINE: &[Line] = &[
    line("iopl", libc::SYS_iopl, &[99]),
    line("ioperm", libc::SYS_ioperm, &[0, 1 << 20, 1]),
    line("modify_ldt", libc::SYS_modify_ldt, &[0, NOWHERE, 0]),
    line("vhangup", libc::SYS_vhangup, &[]),
    line("sysfs", libc::SYS_sysfs, &[99]),
    line("x32.getpid", X32 | libc::SYS_getpid, &[]),
    line("x32.ptrace", X32 | 521, &[0x4206, NOBODY, 0, 0]),
];
#[cfg(not(target_arch = "x86_64"))]
const MACHINE: &[Line] = &[
    line("vhangup", libc::SYS_vhangup, &[]),
    line("x32.getpid", X32 | libc::SYS_getpid, &[]),
];

/// Socket families: name, family, type, protocol.
const FAMILIES: &[(&str, i32, i32, i32)] = &[
    ("socket.packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ("socket.raw", libc::AF_INET, libc::SOCK_RAW, 1),
    ("socket.raw6", libc::AF_INET6, libc::SOCK_RAW, 58),
    ("socket.vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("socket.alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("socket.rxrpc", libc::AF_RXRPC, libc::SOCK_DGRAM, 2),
    ("socket.key", libc::AF_KEY, libc::SOCK_RAW, 2),
    ("socket.xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    ("socket.tipc", libc::AF_TIPC, libc::SOCK_STREAM, 0),
    ("socket.can", libc::AF_CAN, libc::SOCK_RAW, 1),
    ("socket.bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    ("socket.nfc", libc::AF_NFC, libc::SOCK_RAW, 0),
    (
        "socket.netfilter",
        libc::AF_NETLINK,
        libc::SOCK_RAW,
        libc::NETLINK_NETFILTER,
    ),
    ("socket.xfrm", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM),
    ("socket.audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    (
        "socket.generic",
        libc::AF_NETLINK,
        libc::SOCK_RAW,
        libc::NETLINK_GENERIC,
    ),
];

/// Makes every call, each in a process of its own that belongs to no terminal.
pub(crate) fn score(_: &Args) {
    for (name, number, args) in [FILES, PROCESSES, KERNEL, MACHINE].concat() {
        attempt(name, judged(number, args));
    }
    for (name, family, kind, protocol) in FAMILIES {
        let [family, kind, protocol] = [*family, *kind, *protocol].map(bit);
        attempt(name, judged(libc::SYS_socket, [family, kind, protocol, 0, 0, 0]));
    }
    crate::abi::gate();
}

/// Answers zero for success and otherwise the error number, through the exit code.
fn judged(number: i64, args: [usize; 6]) -> Outcome {
    let Some(pid) = fork()? else {
        alarm(3);
        // Away from the terminal, which one of the calls would hang up.
        let _ = try_call(libc::SYS_setsid, &[]);
        exit(crate::sys::call(number, args).err().unwrap_or(0));
    };
    let status = wait(pid);
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGALRM => Ok("it hangs in the kernel".to_owned()),
            signal => refused(format!("ended by signal {signal}")),
        };
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok("the kernel did it".to_owned()),
        errno if REFUSALS.contains(&errno) => Err(errno.into()),
        errno => Ok(format!("let through: {}", std::io::Error::from_raw_os_error(errno))),
    }
}
