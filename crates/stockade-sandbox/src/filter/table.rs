//! Which system calls are refused, and how.

use std::collections::BTreeMap;

/// What happens to a system call that is not simply let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It fails with this error number whatever it asks for.
    Refuse(i32),
    /// It depends on what it asks for.
    Look(Checked),
}

/// Calls of which some forms are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Clone,
    Unshare,
    Socket,
    SocketPair,
    SetSocketOption,
    Ioctl,
    Personality,
    ProcessLimit,
    OwnLimit,
}

/// Numbers between the last of the old calls and the first that all architectures share.
pub(super) const GAP: std::ops::Range<u32> = 337..424;
/// The highest number this table has an opinion on: `file_setattr` of Linux 6.17, which is still
/// the last in 6.18. What comes after it does not exist here: nobody has looked at it yet.
pub(super) const HIGHEST: u32 = 469;

/// Calls of kernels before 2.6.
const SYS_CREATE_MODULE: i64 = 174;
const SYS_GET_KERNEL_SYMS: i64 = 177;
const SYS_QUERY_MODULE: i64 = 178;
/// Calls newer than the libc crate's table; generic numbers, the same on every architecture.
const SYS_MOUNT_SETATTR: i64 = 442;
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_MEMFD_SECRET: i64 = 447;
const SYS_PROCESS_MRELEASE: i64 = 448;
const SYS_SET_MEMPOLICY_HOME_NODE: i64 = 450;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_LSM_GET_SELF_ATTR: i64 = 459;
const SYS_LSM_SET_SELF_ATTR: i64 = 460;
const SYS_LSM_LIST_MODULES: i64 = 461;
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// Answered with ENOSYS: a runtime that asks then takes its older path.
const ABSENT: &[i64] = &[
    // Its flags are in memory, where a filter cannot look.
    libc::SYS_clone3,
    // A second way to almost every other call, past every filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    SYS_MOUNT_SETATTR,
    SYS_OPEN_TREE_ATTR,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    SYS_QUOTACTL_FD,
    SYS_MEMFD_SECRET,
    SYS_PROCESS_MRELEASE,
    SYS_LSM_GET_SELF_ATTR,
    SYS_LSM_SET_SELF_ATTR,
    SYS_LSM_LIST_MODULES,
    libc::SYS_pidfd_getfd,
    // Gone from the kernel, or never in it.
    SYS_CREATE_MODULE,
    SYS_GET_KERNEL_SYMS,
    SYS_QUERY_MODULE,
    libc::SYS__sysctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_uselib,
    libc::SYS_getpmsg,
    libc::SYS_putpmsg,
    libc::SYS_afs_syscall,
    libc::SYS_tuxcall,
    libc::SYS_security,
    libc::SYS_vserver,
    libc::SYS_epoll_ctl_old,
    libc::SYS_epoll_wait_old,
];

/// Answered with EPERM whatever the arguments.
const REFUSED: &[i64] = &[
    // mounts and roots
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    // Other namespaces and other processes' memory. Debuggers do not work here: everything
    // they could reach is the agent's own, but the code behind ptrace is a large piece of kernel.
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // the kernel itself
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_vhangup,
    // kernel keyrings are not namespaced
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // names and clocks
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // memory placement: needs no privilege but reaches other processes
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    SYS_SET_MEMPOLICY_HOME_NODE,
];

const LOOKED_AT: &[(i64, Checked)] = &[
    (libc::SYS_clone, Checked::Clone),
    (libc::SYS_unshare, Checked::Unshare),
    (libc::SYS_socket, Checked::Socket),
    (libc::SYS_socketpair, Checked::SocketPair),
    (libc::SYS_setsockopt, Checked::SetSocketOption),
    (libc::SYS_ioctl, Checked::Ioctl),
    (libc::SYS_personality, Checked::Personality),
    (libc::SYS_prlimit64, Checked::ProcessLimit),
    (libc::SYS_setrlimit, Checked::OwnLimit),
];

/// Every rule by number.
pub(super) fn rules() -> BTreeMap<u32, Rule> {
    let absent = ABSENT.iter().map(|number| (*number, Rule::Refuse(libc::ENOSYS)));
    let refused = REFUSED.iter().map(|number| (*number, Rule::Refuse(libc::EPERM)));
    let looked_at = LOOKED_AT.iter().map(|(number, check)| (*number, Rule::Look(*check)));
    let all = absent.chain(refused).chain(looked_at);
    all.filter_map(|(number, rule)| Some((u32::try_from(number).ok()?, rule)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_listed_twice_or_beyond_the_highest() {
        let rules = rules();
        assert_eq!(rules.len(), ABSENT.len() + REFUSED.len() + LOOKED_AT.len());
        assert!(rules.keys().all(|number| *number <= HIGHEST && !GAP.contains(number)));
    }
}
