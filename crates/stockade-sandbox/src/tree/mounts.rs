//! Single mounts of a tree. Paths are relative to the tree.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{self as unix, DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

use nix::mount::{MsFlags, mount};

use crate::{
    failure::{Failure, Step},
    native::launch::mountapi,
};

const NONE: Option<&str> = None;
const OVERLAY_FIX: &str = "use Linux 5.12 or later with CONFIG_OVERLAY_FS";

/// Mounts the bounded tmpfs.
pub(super) fn tmpfs(target: &Path, size: u64) -> Result<(), Failure> {
    let inodes = (size / 4096).clamp(4096, 4 << 20);
    let options = format!("size={size},nr_inodes={inodes},mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options.as_str())).step("mount the bounded writable layer")
}

/// Makes a directory with exactly this mode.
pub(super) fn directory(path: &str, mode: u32) -> Result<(), Failure> {
    let step = || format!("make the directory {path}");
    DirBuilder::new().recursive(true).mode(mode).create(path).step(step())?;
    // Not subject to the umask.
    fs::set_permissions(path, Permissions::from_mode(mode)).step(step())
}

/// Gives a directory to the sandbox's user.
pub(super) fn give(path: &str, owner: u32) -> Result<(), Failure> {
    unix::chown(path, Some(owner), Some(owner)).step(format!("give {path} to the sandbox's user"))
}

pub(super) fn bind(from: &str, to: &str, flags: MsFlags) -> Result<(), Failure> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | flags, NONE).step(format!("mount {to}"))
}

/// Keeps what is mounted below `path` from propagating.
pub(super) fn private(path: &str) -> Result<(), Failure> {
    mount(NONE, path, NONE, MsFlags::MS_PRIVATE, NONE).step("keep the sandbox's mounts private")
}

pub(super) fn attach(tree: &OwnedFd, at: &str) -> Result<(), Failure> {
    mountapi::attach(tree.as_fd(), at).step(format!("attach {at}"))
}

pub(super) fn overlay(target: &str, flags: MsFlags, options: &str) -> Result<(), Failure> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("{options},userxattr");
    mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
        .map_err(|e| Failure::new(format!("mount {target}"), e).with_fix(OVERLAY_FIX))
}

/// Shows a directory read-only. The empty second layer is there because an overlay
/// without an upper layer needs two.
pub(super) fn read_only(from: &str, to: &str) -> Result<(), Failure> {
    overlay(to, MsFlags::MS_RDONLY, &format!("lowerdir={from}:l/empty"))
}
