//! What a container has on the host: a directory, and the tree mounted in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use stockade_ports::sandbox::{RootFs, SandboxSpec};

use crate::{
    INSIDE_ID,
    failure::{Failure, Step},
    native::{
        launch::mountapi::{self, NODEV, NOEXEC, NOSUID},
        private_directory,
    },
    owner::{ProcessId, Record},
    tree::{self, HostFiles, Root, Tree, TreePlan},
};

/// Files the daemon brings its own versions of unless it is given others.
const NAMES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Where the tree is in a sandbox's directory.
const TREE: &str = "tree";

/// A sandbox's directory. Removed with everything in it when dropped.
pub(super) struct Den {
    dir: PathBuf,
}

impl Den {
    /// Makes the directory and mounts the tree; says what is to appear in the container.
    pub(super) fn make(
        files: &HostFiles,
        name: &str,
        owner: &ProcessId,
        spec: &SandboxSpec,
    ) -> Result<(Self, Vec<(PathBuf, String)>), Failure> {
        let step = "make the sandbox's directory";
        let dir = files.sandboxes.join(name);
        private_directory(&dir).step(step)?;
        let den = Self { dir };
        let record = Record {
            owner: owner.clone(),
            cgroups: Vec::new(),
        };
        record.write(&den.dir).step(step)?;
        let (base, scratch) = (den.dir.join(TREE), den.dir.join("copies"));
        for made in [&base, &scratch] {
            fs::create_dir(made).step(step)?;
        }
        let plan = TreePlan {
            root: match &spec.rootfs {
                RootFs::Host => Root::Host(files.etc.clone()),
                RootFs::Image(image) => Root::Layers(image.layers.clone()),
            },
            guest: files.guest.clone(),
            workspace: spec.workspace.clone(),
            base_git: spec.base_git.clone(),
            agents: spec.agents_dir.clone(),
            disk_bytes: spec.limits.disk_bytes,
            owner: INSIDE_ID,
            base,
            scratch,
        };
        let tree = tree::build_shared(&plan)?;
        let binds = binds(tree)?;
        Ok((den, binds))
    }

    /// Takes the tree off the host; a container that has it mounted keeps it. Whatever becomes of
    /// this process, it then goes with the container.
    pub(super) fn let_go(&self) -> io::Result<()> {
        tree::remove(&self.dir.join(TREE))
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a sandbox's directory was left");
        }
    }
}

/// Removes a sandbox's directory. Never goes into a tree that is still mounted.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    tree::remove(&dir.join(TREE))?;
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn binds(tree: Tree) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut binds = Vec::new();
    for bind in tree.shown.into_iter().chain(tree.writable) {
        if !bind.exec {
            no_programs(&bind.source).step(format!("close {} to programs", bind.target))?;
        }
        binds.push((bind.source, bind.target));
    }
    for name in NAMES {
        binds.push((tree.root.join(name.trim_start_matches('/')), name.to_owned()));
    }
    Ok(binds)
}

/// Makes a directory a mount from which no program may be started.
fn no_programs(dir: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let text = dir.to_str().ok_or_else(|| io::Error::other("its path is not text"))?;
    mount(Some(dir), dir, NONE, MsFlags::MS_BIND, NONE)?;
    mountapi::restrict(text, NOSUID | NODEV | NOEXEC)
}
