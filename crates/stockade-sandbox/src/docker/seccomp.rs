//! The system call filter a container starts with.
//!
//! The daemon's own profile is as old as the daemon: it refuses calls the kernel has gained since,
//! Landlock among them, and so would take defences away. In its place the Guest starts under this
//! short one, which refuses what reaches into the host and what confining itself does not need;
//! then it installs the filter every backend has ([`crate::filter`]) before anything of the
//! agent's is started, and the measurement asks for each call.

use serde_json::json;

/// Calls that no sandbox ever needs and the Guest does not either.
const REFUSED: [&str; 45] = [
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "userfaultfd",
    "vhangup",
];

/// The profile in the daemon's words (docs.docker.com/engine/security/seccomp). Calls by another
/// architecture's numbers end the process; those of x32 are left to our own filter, which says
/// that there are none.
pub(super) fn profile() -> String {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{"names": &REFUSED[..], "action": "SCMP_ACT_ERRNO"}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_the_guest_needs_to_confine_itself_is_refused() {
        let sorted = REFUSED.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(sorted, "in order, each once");
        for needed in [
            "seccomp",
            "prctl",
            "capset",
            "keyctl",
            "landlock_restrict_self",
            "clone",
            "unshare",
        ] {
            assert!(!REFUSED.contains(&needed), "{needed}");
        }
        assert!(profile().contains("SCMP_ACT_ERRNO") && profile().contains("\"mount\""));
    }
}
