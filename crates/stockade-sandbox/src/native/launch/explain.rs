//! What a refused system call says about the host, and what its operator can change.

use std::{fmt::Display, fs, io};

use crate::failure::Failure;

fn sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Why no user namespace could be made.
pub(super) fn no_namespaces(error: &io::Error) -> Failure {
    let failure = Failure::new("make the sandbox's namespaces", error);
    let fix = if sysctl("kernel.unprivileged_userns_clone") == Some(0) {
        "users may not make user namespaces here; allow it with \
         'sysctl -w kernel.unprivileged_userns_clone=1' and a line in /etc/sysctl.d, or start \
         stockade as root"
    } else if sysctl("user.max_user_namespaces") == Some(0) {
        "user namespaces are switched off; allow them with \
         'sysctl -w user.max_user_namespaces=15000' and a line in /etc/sysctl.d"
    } else if error.raw_os_error() == Some(libc::ENOSPC) {
        "the host's limit on namespaces is used up; raise user.max_user_namespaces, \
         user.max_net_namespaces and user.max_pid_namespaces with sysctl"
    } else if error.raw_os_error() == Some(libc::EPERM) {
        "the host forbids user namespaces (a container's seccomp profile often does): run \
         stockade on the host itself, or allow clone and unshare of namespaces in its container"
    } else if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
        "use a kernel with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS and \
         CONFIG_UTS_NS"
    } else {
        return failure;
    };
    failure.with_fix(fix)
}

/// What is known to fail before anything is tried, so that the first thing said is the cause.
pub(super) fn hopeless(root: bool) -> Result<(), Failure> {
    if sysctl("user.max_user_namespaces") == Some(0) {
        return Err(no_namespaces(&io::Error::from_raw_os_error(libc::ENOSPC)));
    }
    if root && !is_root_of_the_host() {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        return Err(no_mapping(root, &error));
    }
    Ok(())
}

/// Whether uid 0 here is uid 0 of the initial user namespace: only that one maps every id to itself.
fn is_root_of_the_host() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Why the ids could not be mapped.
pub(super) fn no_mapping(root: bool, error: &io::Error) -> Failure {
    let failure = Failure::new("map the sandbox's user", error);
    if root {
        failure.with_fix(
            "root here is not root of the host (a container with its own user namespace): start \
             stockade as an ordinary user instead",
        )
    } else {
        failure
    }
}

/// Why the first privileged call inside the new namespaces was refused. A host may let
/// users make a user namespace and then give them no capability in it.
pub(super) fn first_mount(step: &str, error: impl Display) -> Failure {
    let failure = Failure::new(step, error);
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
        return failure.with_fix(
            "AppArmor takes the rights away that a user namespace gives; allow them with \
             'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0', or load an AppArmor \
             profile with 'userns,' for the stockade binary, or start stockade as root",
        );
    }
    failure
}
