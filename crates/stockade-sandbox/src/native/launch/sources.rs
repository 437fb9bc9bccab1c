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
    path::{Path, PathBuf},
};

use super::{
    mountapi,
    snapshot::Restore,
    userns,
    wire::{Claim, LaunchSpec},
};
use crate::{
    copy::copy_tree,
    failure::{Failure, Step},
};

/// What a sandbox is to see of the host.
pub(super) struct Wanted<'w> {
    /// Unpacked layers of an image.
    layers: &'w [PathBuf],
    /// Generated `/etc`; a sandbox that was made beforehand has it already.
    etc: Option<&'w Path>,
    workspace: Option<&'w Path>,
    base_git: Option<&'w Path>,
    agents: Option<&'w Path>,
    /// Archive of a snapshot.
    restore: Option<&'w Path>,
    /// The sandbox's directory on the host.
    dir: &'w Path,
}

impl<'w> Wanted<'w> {
    pub(super) fn by_spec(spec: &'w LaunchSpec) -> Self {
        Self {
            layers: &spec.layers,
            etc: spec.layers.is_empty().then_some(&spec.etc),
            workspace: spec.workspace.as_deref(),
            base_git: spec.base_git.as_deref(),
            agents: spec.agents.as_deref(),
            restore: spec.restore.as_deref(),
            dir: &spec.dir,
        }
    }

    pub(super) fn by_claim(claim: &'w Claim, dir: &'w Path) -> Self {
        Self {
            layers: &[],
            etc: None,
            workspace: claim.workspace.as_deref(),
            base_git: claim.base_git.as_deref(),
            agents: claim.agents.as_deref(),
            restore: None,
            dir,
        }
    }
}

/// Detached mounts of what is wanted.
pub(super) struct Sources {
    /// Layers of an image, the uppermost first.
    pub(super) layers: Vec<OwnedFd>,
    pub(super) etc: Option<OwnedFd>,
    pub(super) workspace: Option<OwnedFd>,
    pub(super) base_git: Option<OwnedFd>,
    pub(super) agents: Option<OwnedFd>,
    pub(super) restore: Option<Restore>,
}

impl Sources {
    /// Opens everything with the caller's own rights.
    pub(super) fn open(wanted: &Wanted<'_>) -> Result<Self, Failure> {
        Ok(Self {
            layers: wanted.layers.iter().map(|p| open(p)).collect::<Result<_, _>>()?,
            etc: wanted.etc.map(open).transpose()?,
            workspace: wanted.workspace.map(open).transpose()?,
            base_git: wanted.base_git.map(open).transpose()?,
            agents: wanted.agents.map(open).transpose()?,
            restore: wanted.restore.map(Restore::open).transpose()?,
        })
    }

    /// Opens everything as root for a sandbox that runs as `uid`.
    pub(super) fn open_for(wanted: &Wanted<'_>, uid: u32) -> Result<Self, Failure> {
        let mapped = |path: Option<&Path>| path.map(|p| open_mapped(p, uid)).transpose();
        let workspace = match wanted.workspace {
            None => None,
            Some(path) => Some(match open_mapped(path, uid)? {
                (tree, true) => tree,
                (_, false) => open(&own_copy(path, wanted.dir, uid)?)?,
            }),
        };
        Ok(Self {
            layers: wanted.layers.iter().map(|p| open(p)).collect::<Result<_, _>>()?,
            etc: wanted.etc.map(open).transpose()?,
            workspace,
            // Without the mapping these show what everybody on the host may read.
            base_git: mapped(wanted.base_git)?.map(|(tree, _)| tree),
            agents: mapped(wanted.agents)?.map(|(tree, _)| tree),
            restore: wanted.restore.map(Restore::open).transpose()?,
        })
    }
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let step = || format!("open the directory {}", path.display());
    let meta = fs::metadata(path).step(step())?;
    if !meta.is_dir() {
        return Err(Failure::new(step(), "it is not a directory"));
    }
    mountapi::clone_tree(path).step(step())
}

/// Opens a directory so that its owner appears as `uid`; the flag says whether the
/// file system could do that.
pub(crate) fn open_mapped(path: &Path, uid: u32) -> Result<(OwnedFd, bool), Failure> {
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
pub(crate) fn own_copy(path: &Path, dir: &Path, uid: u32) -> Result<PathBuf, Failure> {
    let step = "copy the workspace for the sandbox's user";
    let copy = dir.join("workspace");
    fs::create_dir(&copy).step(step)?;
    copy_tree(path, &copy, Some((uid, uid))).step(step)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).step(step)?;
    unix::chown(&copy, Some(uid), Some(uid)).step(step)?;
    Ok(copy)
}
