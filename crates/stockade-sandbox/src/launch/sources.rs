//! The host directories a sandbox sees, as detached mounts.
//!
//! As root the launcher opens them, because the sandbox's own uid may not pass through
//! the directories above them, and shows their owner as that uid. Rootless the sandbox's
//! first process opens them itself, inside its mount namespace.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{self as unix, MetadataExt, PermissionsExt},
    },
    path::Path,
};

use super::{mountapi, userns, wire::LaunchSpec};
use crate::{
    copy::copy_tree,
    failure::{Failure, Step},
};

/// Detached mounts of the directories in the spec.
pub(super) struct Sources {
    pub(super) etc: OwnedFd,
    pub(super) workspace: Option<OwnedFd>,
    pub(super) base_git: Option<OwnedFd>,
    pub(super) agents: Option<OwnedFd>,
}

impl Sources {
    /// Opens everything with the caller's own rights.
    pub(super) fn open(spec: &LaunchSpec) -> Result<Self, Failure> {
        let optional = |path: &Option<_>| path.as_deref().map(open).transpose();
        Ok(Self {
            etc: open(&spec.etc)?,
            workspace: optional(&spec.workspace)?,
            base_git: optional(&spec.base_git)?,
            agents: optional(&spec.agents)?,
        })
    }

    /// Opens everything as root for a sandbox that runs as `uid`.
    pub(super) fn open_for(spec: &LaunchSpec, uid: u32) -> Result<Self, Failure> {
        let mapped = |path: &Option<_>| path.as_deref().map(|p| open_mapped(p, uid)).transpose();
        let workspace = match &spec.workspace {
            None => None,
            Some(path) => Some(match open_mapped(path, uid)? {
                (tree, true) => tree,
                (_, false) => open(&own_copy(path, &spec.dir, uid)?)?,
            }),
        };
        Ok(Self {
            etc: open(&spec.etc)?,
            workspace,
            // Without the mapping these show what everybody on the host may read.
            base_git: mapped(&spec.base_git)?.map(|(tree, _)| tree),
            agents: mapped(&spec.agents)?.map(|(tree, _)| tree),
        })
    }
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let step = || format!("open the directory {}", path.display());
    let meta = fs::metadata(path).step(step())?;
    if !meta.is_dir() {
        return Err(Failure::new(step(), "it is not a directory"));
    }
    mountapi::clone_tree(path).step(step())
}

/// Opens a directory so that its owner appears as `uid`; the flag says whether the
/// file system could do that.
fn open_mapped(path: &Path, uid: u32) -> Result<(OwnedFd, bool), Failure> {
    let tree = open(path)?;
    let step = || format!("show {} to the sandbox's user", path.display());
    let meta = fs::metadata(path).step(step())?;
    mountapi::make_private(tree.as_fd()).step(step())?;
    let namespace = userns::mapping_namespace((meta.uid(), meta.gid()), uid).step(step())?;
    let mapped = mountapi::map_owners(tree.as_fd(), namespace.as_fd()).is_ok();
    Ok((tree, mapped))
}

/// A private copy that belongs to `uid`, for file systems without mapped mounts. Never a
/// change of owner in place: files of a local clone may be hard links to its origin's.
fn own_copy(path: &Path, dir: &Path, uid: u32) -> Result<std::path::PathBuf, Failure> {
    let step = "copy the workspace for the sandbox's user";
    let copy = dir.join("workspace");
    fs::create_dir(&copy).step(step)?;
    copy_tree(path, &copy, Some((uid, uid))).step(step)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).step(step)?;
    unix::chown(&copy, Some(uid), Some(uid)).step(step)?;
    Ok(copy)
}
