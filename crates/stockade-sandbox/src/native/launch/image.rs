//! The root of an OCI image: its layers, read-only, below a layer of the sandbox's own.
//!
//! The layer on top is the empty root that every sandbox gets. It has a real directory for every
//! place something is mounted on, and a directory of an upper layer hides whatever has its name
//! in a lower one: an image whose `/etc` or `/proc` is a link to somewhere else leads nothing
//! astray, because no mount ever resolves a path of the image's making. The layers are attached
//! from the outside as detached mounts and named relative to a directory that is gone afterwards,
//! so `mountinfo` shows no path of the host.
//!
//! Nothing in an image is trusted: the mount has no devices and no set-uid programs, whatever the
//! unpacked layers hold.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
};

use nix::mount::MsFlags;
use rustix::{
    fs::{XattrFlags, fsetxattr},
    io::Errno,
};

use super::rootfs::{attach, directory, overlay};
use crate::{
    failure::{Failure, Step},
    native::etc,
};

/// Places whose content in the image is not wanted: what is mounted there does not cover all of
/// it, or it would seem to be the sandbox's own.
pub(crate) const EMPTY: [&str; 9] = [
    "dev",
    "home/agent",
    "mnt",
    "opt/agents",
    "proc",
    "run",
    "sys",
    "tmp",
    "workspace",
];
/// The mark of a directory that hides what is below it (overlayfs with `userxattr`).
const OPAQUE: &str = "user.overlay.opaque";

/// Covers the empty root at `r` with a view of it and the image's layers below, the uppermost
/// first. Read-only: what is to be in the sandbox's own layer must be there by now.
pub(crate) fn lay(layers: &[OwnedFd]) -> Result<(), Failure> {
    settings()?;
    for place in EMPTY {
        let path = format!("r/{place}");
        let dir = File::open(&path).step(format!("open {path}"))?;
        match fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()) {
            // tmpfs keeps user attributes since Linux 6.6. Without them files of the image show
            // through in these places; they are files like any others.
            Err(Errno::OPNOTSUPP) => break,
            other => other.map_err(std::io::Error::from).step(format!("empty {path}"))?,
        }
    }
    // One page has room for all names, and an image for 127 layers.
    let mut options = "lowerdir=r".to_owned();
    for (number, layer) in layers.iter().enumerate() {
        let path = format!("l/{number}");
        directory(&path, 0o755)?;
        attach(layer, &path)?;
        options.push(':');
        options.push_str(&path);
    }
    overlay("r", MsFlags::MS_RDONLY, &options)
}

/// Accounts and names: the sandbox's own and not the image's. Everything else in its `/etc` stays
/// as it is there.
fn settings() -> Result<(), Failure> {
    for (name, text) in etc::generated() {
        let path = format!("r/etc/{name}");
        fs::write(&path, text).step(format!("write {path}"))?;
        // What is made here is made with no umask.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, mode).step(format!("write {path}"))?;
    }
    Ok(())
}
