//! Dangerous system calls, tried so that none does harm: where the kernel looks at the
//! arguments at all it finds them impossible and says so, which is the observation.

use std::collections::BTreeMap;

use super::kernel::call;

type Call = (&'static str, libc::c_long, [libc::c_long; 6]);

/// An impossible descriptor, process, command or flag.
const NO: libc::c_long = -1;
/// An address nothing is mapped at.
const NOWHERE: libc::c_long = 1;
/// `process_vm_readv` and others take no flags.
const BAD_FLAG: libc::c_long = 1;

/// By number where the C library has no name; the same on every architecture.
const SYS_MOUNT_SETATTR: libc::c_long = 442;
const SYS_QUOTACTL_FD: libc::c_long = 443;
const SYS_PROCESS_MRELEASE: libc::c_long = 448;
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
const SYS_LISTNS: libc::c_long = 470;
/// A number no kernel has yet.
const SYS_OF_TOMORROW: libc::c_long = 999;
const X32: libc::c_long = 0x4000_0000;

const TIOCSTI: libc::c_long = 0x5412;
const TIOCLINUX: libc::c_long = 0x541c;
const READ_IMPLIES_EXEC: libc::c_long = 0x0040_0000;

const CALLS: [Call; 64] = [
    ("mount", libc::SYS_mount, [0; 6]),
    ("umount2", libc::SYS_umount2, [NOWHERE, 0, 0, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [NOWHERE; 6]),
    ("chroot", libc::SYS_chroot, [NOWHERE; 6]),
    ("fsopen", libc::SYS_fsopen, [NOWHERE, NO, 0, 0, 0, 0]),
    ("fsconfig", libc::SYS_fsconfig, [NO; 6]),
    ("fsmount", libc::SYS_fsmount, [NO; 6]),
    ("fspick", libc::SYS_fspick, [NO; 6]),
    ("open_tree", libc::SYS_open_tree, [NO; 6]),
    ("move_mount", libc::SYS_move_mount, [NO; 6]),
    ("mount_setattr", SYS_MOUNT_SETATTR, [NO; 6]),
    ("open_tree_attr", SYS_OPEN_TREE_ATTR, [NO; 6]),
    ("statmount", SYS_STATMOUNT, [NOWHERE; 6]),
    ("listmount", SYS_LISTMOUNT, [NOWHERE; 6]),
    ("listns", SYS_LISTNS, [NOWHERE; 6]),
    ("quotactl", libc::SYS_quotactl, [NO; 6]),
    ("quotactl_fd", SYS_QUOTACTL_FD, [NO; 6]),
    ("fanotify_init", libc::SYS_fanotify_init, [NO; 6]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [NO; 6]),
    ("swapon", libc::SYS_swapon, [NOWHERE, NO, 0, 0, 0, 0]),
    ("swapoff", libc::SYS_swapoff, [NOWHERE; 6]),
    ("setns", libc::SYS_setns, [NO; 6]),
    ("ptrace", libc::SYS_ptrace, [3, NO, 0, 0, 0, 0]),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        [NO, 0, 0, 0, 0, BAD_FLAG],
    ),
    (
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        [NO, 0, 0, 0, 0, BAD_FLAG],
    ),
    ("process_madvise", libc::SYS_process_madvise, [NO; 6]),
    ("process_mrelease", SYS_PROCESS_MRELEASE, [NO; 6]),
    ("kcmp", libc::SYS_kcmp, [NO; 6]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [NO; 6]),
    ("move_pages", libc::SYS_move_pages, [NO, 0, 0, 0, 0, NO]),
    ("migrate_pages", libc::SYS_migrate_pages, [NO; 6]),
    ("bpf", libc::SYS_bpf, [NO, NOWHERE, 0, 0, 0, 0]),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        [NOWHERE, NO, NO, NO, NO, 0],
    ),
    ("io_uring_setup", libc::SYS_io_uring_setup, [NO, NOWHERE, 0, 0, 0, 0]),
    ("io_uring_enter", libc::SYS_io_uring_enter, [NO; 6]),
    ("io_uring_register", libc::SYS_io_uring_register, [NO; 6]),
    ("userfaultfd", libc::SYS_userfaultfd, [NO; 6]),
    ("add_key", libc::SYS_add_key, [NOWHERE; 6]),
    ("request_key", libc::SYS_request_key, [NOWHERE; 6]),
    ("keyctl", libc::SYS_keyctl, [NO; 6]),
    ("kexec_load", libc::SYS_kexec_load, [0, NO, NOWHERE, NO, 0, 0]),
    ("kexec_file_load", libc::SYS_kexec_file_load, [NO; 6]),
    ("init_module", libc::SYS_init_module, [NOWHERE, NO, NOWHERE, 0, 0, 0]),
    ("finit_module", libc::SYS_finit_module, [NO; 6]),
    ("delete_module", libc::SYS_delete_module, [NOWHERE; 6]),
    ("reboot", libc::SYS_reboot, [0; 6]),
    ("syslog", libc::SYS_syslog, [NO; 6]),
    ("acct", libc::SYS_acct, [NOWHERE; 6]),
    ("iopl", libc::SYS_iopl, [NO; 6]),
    ("ioperm", libc::SYS_ioperm, [NO, NO, NOWHERE, 0, 0, 0]),
    ("modify_ldt", libc::SYS_modify_ldt, [0; 6]),
    ("sethostname", libc::SYS_sethostname, [NOWHERE, NO, 0, 0, 0, 0]),
    ("setdomainname", libc::SYS_setdomainname, [NOWHERE, NO, 0, 0, 0, 0]),
    ("settimeofday", libc::SYS_settimeofday, [NOWHERE; 6]),
    ("clock_settime", libc::SYS_clock_settime, [NO, NOWHERE, 0, 0, 0, 0]),
    ("clock_adjtime", libc::SYS_clock_adjtime, [NO, NOWHERE, 0, 0, 0, 0]),
    ("adjtimex", libc::SYS_adjtimex, [NOWHERE; 6]),
    ("clone3", libc::SYS_clone3, [0; 6]),
    ("personality", libc::SYS_personality, [READ_IMPLIES_EXEC, 0, 0, 0, 0, 0]),
    ("prlimit64-guest", libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0]),
    ("ioctl-tiocsti", libc::SYS_ioctl, [NO, TIOCSTI, 0, 0, 0, 0]),
    ("ioctl-tioclinux", libc::SYS_ioctl, [NO, TIOCLINUX, 0, 0, 0, 0]),
    ("x32-getpid", X32 | libc::SYS_getpid, [0; 6]),
    ("number-of-tomorrow", SYS_OF_TOMORROW, [0; 6]),
];

const NAMESPACES: [(&str, i32); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("net", libc::CLONE_NEWNET),
    ("ns", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

/// Family, type and protocol of sockets nobody needs; numbers of socket(2) and netlink(7).
const SOCKETS: [(&str, i32, i32, i32); 21] = [
    ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("rxrpc", libc::AF_RXRPC, libc::SOCK_DGRAM, libc::AF_INET),
    ("key", libc::AF_KEY, libc::SOCK_RAW, 2),
    ("can", libc::AF_CAN, libc::SOCK_RAW, 1),
    ("tipc", libc::AF_TIPC, libc::SOCK_SEQPACKET, 0),
    ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    ("nfc", libc::AF_NFC, libc::SOCK_SEQPACKET, 0),
    ("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    ("kcm", 41, libc::SOCK_DGRAM, 0),
    ("smc", 43, libc::SOCK_STREAM, 0),
    ("netlink-sock_diag", libc::AF_NETLINK, libc::SOCK_RAW, 4),
    ("netlink-xfrm", libc::AF_NETLINK, libc::SOCK_RAW, 6),
    ("netlink-audit", libc::AF_NETLINK, libc::SOCK_RAW, 9),
    ("netlink-netfilter", libc::AF_NETLINK, libc::SOCK_RAW, 12),
    ("netlink-uevent", libc::AF_NETLINK, libc::SOCK_RAW, 15),
    ("netlink-generic", libc::AF_NETLINK, libc::SOCK_RAW, 16),
    ("inet-raw", libc::AF_INET, libc::SOCK_RAW, 1),
    ("inet6-raw", libc::AF_INET6, libc::SOCK_RAW, 58),
    ("inet-sctp", libc::AF_INET, libc::SOCK_STREAM, 132),
];

/// What each answers: an error number, 0 for success.
pub(super) fn all() -> BTreeMap<String, i32> {
    let mut seen = BTreeMap::new();
    for (name, number, arguments) in CALLS {
        seen.insert(name.to_owned(), call(number, arguments));
    }
    for (name, flag) in NAMESPACES {
        // A signal number is no flag of unshare, and CLONE_THREAD asks for more than itself:
        // without a filter both are EINVAL and no namespace is made.
        let unshare = call(libc::SYS_unshare, [(flag | 1).into(), 0, 0, 0, 0, 0]);
        let clone = call(libc::SYS_clone, [(flag | libc::CLONE_THREAD).into(), 0, 0, 0, 0, 0]);
        seen.insert(format!("unshare-{name}"), unshare);
        seen.insert(format!("clone-{name}"), clone);
    }
    for (name, family, kind, protocol) in SOCKETS {
        let arguments = [family.into(), kind.into(), protocol.into(), 0, 0, 0];
        seen.insert(format!("socket-{name}"), call(libc::SYS_socket, arguments));
    }
    seen
}
