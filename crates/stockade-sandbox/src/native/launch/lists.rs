//! Places where a system keeps its list of certificate authorities, opened to the sandbox's user.
//!
//! Most programs believe that list and no variable. A run whose connections are read has an
//! authority of its own, which is known only after the sandbox was made; whoever provisions it
//! writes it into these places then, with the rights of the sandbox's user. Each is a layer of
//! the sandbox's own over what the root has there: nothing outside changes, and an agent that
//! spoils its list shuts itself out.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{self as unix, PermissionsExt as _},
    path::{Component, Path},
};

use nix::mount::MsFlags;

use super::rootfs::overlay;
use crate::failure::{Failure, Step};

/// A place, and the directories in it that lists are in too. Debian, Alpine and Arch have the
/// first, Fedora and its kin the others (update-ca-certificates(8), update-ca-trust(8)).
const PLACES: [(&str, &[&str]); 3] = [
    ("etc/ssl/certs", &["java"]),
    ("etc/pki/tls/certs", &[]),
    ("etc/pki/ca-trust/extracted", &["pem", "java"]),
];
/// Where the layers are, below the sandbox's writable layer.
const LAYERS: &str = "t";

/// A place that can be written.
pub(crate) struct OpenedList {
    /// Where it belongs, without a slash in front.
    pub(crate) place: &'static str,
    /// Where it is mounted.
    pub(crate) mounted: String,
}

/// Lays a writable layer over each place that is a directory below `from`. It is mounted at the
/// place below `root`, or, without one, beside its layer. A place that cannot have one (an image
/// on an overlay of overlays) stays as it is.
pub(crate) fn open(from: &str, root: Option<&str>, owner: Option<u32>) -> Result<Vec<OpenedList>, Failure> {
    directory(LAYERS)?;
    let mut opened = Vec::new();
    for (number, (place, inner)) in PLACES.iter().enumerate() {
        let lower = format!("{from}/{place}");
        if !is_real_directory(from, place) {
            continue;
        }
        let layer = format!("{LAYERS}/{number}");
        for name in ["", "/upper", "/work", "/merged"] {
            directory(&format!("{layer}{name}"))?;
        }
        for name in inner.iter().filter(|name| is_real_directory(&lower, name)) {
            own(&format!("{layer}/upper/{name}"), owner)?;
        }
        if let Some(owner) = owner {
            give(&format!("{layer}/upper"), owner)?;
        }
        let mounted = match root {
            Some(root) => format!("{root}/{place}"),
            None => format!("{layer}/merged"),
        };
        let options = format!("lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work");
        if overlay(&mounted, MsFlags::MS_NOEXEC, &options).is_ok() {
            opened.push(OpenedList { place, mounted });
        }
    }
    Ok(opened)
}

/// Makes a directory everybody may pass through, whatever the umask is.
fn directory(path: &str) -> Result<(), Failure> {
    let step = || format!("make the directory {path}");
    fs::create_dir(path).step(step())?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).step(step())
}

fn own(path: &str, owner: Option<u32>) -> Result<(), Failure> {
    directory(path)?;
    owner.map_or(Ok(()), |owner| give(path, owner))
}

fn give(path: &str, owner: u32) -> Result<(), Failure> {
    unix::chown(path, Some(owner), Some(owner)).step(format!("give {path} to the sandbox's user"))
}

/// Whether every part of a path is a directory and none a link: an image has its own mind about
/// where its names lead. Nothing changes below `root` any more.
fn is_real_directory(root: &str, path: &str) -> bool {
    let mut at = Path::new(root).to_owned();
    Path::new(path).components().all(|part| {
        at.push(part);
        matches!(part, Component::Normal(_)) && fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_on_the_way_is_no_place() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().to_str().expect("text");
        fs::create_dir_all(dir.path().join("etc/ssl/certs")).expect("mkdir");
        assert!(is_real_directory(root, "etc/ssl/certs"), "control");
        unix::symlink("ssl", dir.path().join("etc/pki")).expect("link");
        fs::write(dir.path().join("etc/file"), "").expect("file");
        for other in ["etc/pki/certs", "etc/pki", "etc/file", "etc/absent", "etc/../etc/ssl"] {
            assert!(!is_real_directory(root, other), "{other}");
        }
    }
}
