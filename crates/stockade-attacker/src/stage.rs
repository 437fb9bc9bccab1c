//! Stages for controls: namespaces of the attacker's own, in which it may do what it likes.
//!
//! Without `stage=` nothing happens here. Inside a sandbox the red team never asks for one.

use std::fs;

use crate::{args::Args, netlink, sys::try_call, tell::Refusal};

/// Enters the namespaces named in `stage=`, as root of them, and gives the loopback the
/// addresses named in `address=`.
pub(crate) fn enter(args: &Args) -> Result<(), Refusal> {
    let mut flags = 0;
    for word in args.get("stage").split(',').filter(|word| !word.is_empty()) {
        flags |= match word {
            "user" => libc::CLONE_NEWUSER,
            "mount" => libc::CLONE_NEWNS,
            "net" => libc::CLONE_NEWNET,
            "uts" => libc::CLONE_NEWUTS,
            "ipc" => libc::CLONE_NEWIPC,
            "cgroup" => libc::CLONE_NEWCGROUP,
            _ => 0,
        };
    }
    if flags == 0 {
        return Ok(());
    }
    // Once in the new namespace we are nobody there, and our own ids are not to be found out.
    let [uid, gid] = [libc::SYS_getuid, libc::SYS_getgid].map(|number| try_call(number, &[]).unwrap_or(0));
    try_call(libc::SYS_unshare, &[flags as usize])?;
    if flags & libc::CLONE_NEWUSER != 0 {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    if flags & libc::CLONE_NEWNET != 0 {
        netlink::loopback_up(args.all("address"))?;
    }
    Ok(())
}
