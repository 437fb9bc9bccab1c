//! What one sandbox sees, made on the host by root, for backends whose runtime mounts what
//! it is told to and no more (OCI runtimes, Docker).
//!
//! One bounded tmpfs holds everything that can be written, and the places the rest is
//! mounted at:
//!
//! ```text
//! BASE/                tmpfs of disk_bytes
//!   r/                 the root: directories, and what is read-only mounted in it
//!   d/tmp …            /tmp, /var/tmp, /home/agent, /dev/shm; the sandbox's user owns them
//!   w/upper, w/work    the writable layer of /workspace
//!   w/merged           /workspace: that layer over the directory of the host
//!   t/…                certificate lists of the system that a run may add to
//!   l/…                the directories of the host that overlays are made of
//! ```
//!
//! As in the native backend, directories of the host other than its programs appear through
//! overlays with relative options, so that no path of the host shows in
//! `/proc/self/mountinfo`.

mod host;
mod mounts;
mod root;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, umount2},
    unistd::chdir,
};

pub(crate) use self::host::{GUEST_PATH, HostFiles};
use self::mounts::{attach, bind, directory, give, overlay, read_only, tmpfs};
use crate::{
    copy::copy_tree,
    failure::{Failure, Step},
    native::launch::{lists, mountapi, sources},
};

/// Writable directories: below `d/`, inside, whether programs may run from it, mode.
const WRITABLE: [(&str, &str, bool, u32); 4] = [
    ("tmp", "/tmp", true, 0o1777),
    ("var-tmp", "/var/tmp", true, 0o1777),
    ("home", "/home/agent", true, 0o755),
    ("shm", "/dev/shm", false, 0o1777),
];

/// What a tree is made of.
#[derive(Debug, Clone)]
pub(crate) struct TreePlan {
    /// An empty directory of the host. Absolute.
    pub(crate) base: PathBuf,
    /// What the root is made of.
    pub(crate) root: Root,
    /// Directory that becomes `/run/stockade`: the Guest, and the place of the git directory.
    pub(crate) guest: PathBuf,
    /// Host directory below `/workspace`; never written.
    pub(crate) workspace: Option<PathBuf>,
    /// Host directory at [`stockade_ports::sandbox::BASE_GIT_DIR`].
    pub(crate) base_git: Option<PathBuf>,
    /// Host directory at [`stockade_ports::sandbox::AGENTS_DIR`].
    pub(crate) agents: Option<PathBuf>,
    /// Size of everything writable together.
    pub(crate) disk_bytes: u64,
    /// Host uid and gid of the sandbox's user.
    pub(crate) owner: u32,
    /// Directory of the host for copies where the kernel cannot show other owners.
    pub(crate) scratch: PathBuf,
}

/// What a root is made of.
#[derive(Debug, Clone)]
pub(crate) enum Root {
    /// The host's programs and a generated `/etc`, which is this directory.
    Host(PathBuf),
    /// Layers of an image, the uppermost first.
    Layers(Vec<PathBuf>),
}

/// A tree that is mounted.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// The whole root with everything read-only in it. A runtime that takes a root takes
    /// this and [`Tree::writable`].
    pub(crate) root: PathBuf,
    /// Writable directories and where they belong, a directory before those in it.
    pub(crate) writable: Vec<Bind>,
    /// The read-only directories of [`Tree::root`] once more, for a runtime that has a root of
    /// its own; links of the root (`/bin` to `usr/bin`) are the runtime's to make then.
    pub(crate) shown: Vec<Bind>,
}

/// A directory to be mounted inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// On the host.
    pub(crate) source: PathBuf,
    /// Inside.
    pub(crate) target: String,
    /// Whether programs may be started from it.
    pub(crate) exec: bool,
}

impl TreePlan {
    /// Mounts the tree and leaves the calling thread in `/`.
    ///
    /// For a thread that shares neither its working directory with others (`CLONE_FS`) nor,
    /// unless the mounts are to be seen by others, its mounts. On error what was mounted
    /// stays: it goes with the thread's mount namespace, or by [`remove`].
    pub(crate) fn build(&self) -> Result<Tree, Failure> {
        // Opened first: the tree may cover the place they are in.
        let given = Given::open(self)?;
        tmpfs(&self.base, self.disk_bytes)?;
        chdir(&self.base).step("enter the sandbox's tree")?;
        let tree = self.fill(given);
        chdir("/").step("leave the sandbox's tree")?;
        tree
    }

    fn fill(&self, given: Given) -> Result<Tree, Failure> {
        for dir in ["r", "d", "w", "w/upper", "w/work", "w/merged", "l", "l/empty"] {
            directory(dir, 0o755)?;
        }
        give("w/upper", self.owner)?;
        let mut shown = match given.root {
            root::Opened::Host(etc) => root::host(etc, &self.base)?,
            root::Opened::Layers(layers) => root::layers(&layers)?,
        };
        let lists = lists::open(if self.has_layers() { "r" } else { "l" }, None, Some(self.owner))?;
        let places = [
            (given.guest, "run", "/run/stockade"),
            (given.base_git, "base.git", "/run/stockade/base.git"),
            (given.agents, "agents", "/opt/agents"),
        ];
        for (tree, name, target) in places {
            let Some(tree) = tree else { continue };
            let (from, to) = (format!("l/{name}"), format!("r{target}"));
            directory(&from, 0o755)?;
            attach(&tree, &from)?;
            read_only(&from, &to)?;
            shown.push(self.bind(&to, target, true));
        }
        let mut writable = vec![self.workspace(given.workspace)?];
        for (name, target, exec, mode) in WRITABLE {
            let from = format!("d/{name}");
            directory(&from, mode)?;
            give(&from, self.owner)?;
            if !exec {
                // Not left to the runtime: `crun` forgets the flags of a bind mount.
                bind(&from, &from, MsFlags::empty())?;
                let flags = mountapi::NOEXEC | mountapi::NOSUID | mountapi::NODEV;
                mountapi::restrict_one(&from, flags).step(format!("close {target} to programs"))?;
            }
            writable.push(self.bind(&from, target, exec));
        }
        for list in lists {
            writable.push(self.bind(&list.mounted, &format!("/{}", list.place), false));
        }
        bind("r", "r", MsFlags::MS_REC)?;
        mountapi::restrict_one("r", mountapi::RDONLY | mountapi::NOSUID | mountapi::NODEV)
            .step("make the root read-only")?;
        Ok(Tree {
            root: self.base.join("r"),
            writable,
            shown,
        })
    }

    fn has_layers(&self) -> bool {
        matches!(self.root, Root::Layers(_))
    }

    fn bind(&self, source: &str, target: &str, exec: bool) -> Bind {
        Bind {
            source: self.base.join(source),
            target: target.to_owned(),
            exec,
        }
    }

    /// Makes the workspace: a layer over the host's directory, a copy of it, or nothing.
    fn workspace(&self, given: Option<std::os::fd::OwnedFd>) -> Result<Bind, Failure> {
        const TARGET: &str = stockade_ports::sandbox::WORKSPACE;
        let Some(tree) = given else {
            return Ok(self.bind("w/upper", TARGET, true));
        };
        directory("l/workspace", 0o755)?;
        attach(&tree, "l/workspace")?;
        let step = "make the workspace";
        // Without user attributes the layer could not replace a directory.
        if mountapi::keeps_user_attributes("w/upper").step(step)? {
            let options = "lowerdir=l/workspace,upperdir=w/upper,workdir=w/work";
            overlay("w/merged", MsFlags::empty(), options)?;
            return Ok(self.bind("w/merged", TARGET, true));
        }
        let owner = Some((self.owner, self.owner));
        copy_tree(Path::new("l/workspace"), Path::new("w/upper"), owner).map_err(|e| {
            let cause = match e.raw_os_error() {
                Some(libc::ENOSPC) => "it does not fit into the sandbox's disk limit".to_owned(),
                _ => e.to_string(),
            };
            Failure::new("copy the workspace", cause)
        })?;
        Ok(self.bind("w/upper", TARGET, true))
    }
}

/// The plan's directories as detached mounts, the owner of each shown as the sandbox's user.
struct Given {
    root: root::Opened,
    guest: Option<std::os::fd::OwnedFd>,
    workspace: Option<std::os::fd::OwnedFd>,
    base_git: Option<std::os::fd::OwnedFd>,
    agents: Option<std::os::fd::OwnedFd>,
}

impl Given {
    fn open(plan: &TreePlan) -> Result<Self, Failure> {
        let mapped = |path: &Option<PathBuf>| {
            let open = |path: &PathBuf| sources::open_mapped(path, plan.owner);
            path.as_ref().map(open).transpose()
        };
        let workspace = match (mapped(&plan.workspace)?, &plan.workspace) {
            (Some((_, false)), Some(path)) => {
                Some(sources::open(&sources::own_copy(path, &plan.scratch, plan.owner)?)?)
            }
            (opened, _) => opened.map(|(tree, _)| tree),
        };
        Ok(Self {
            root: root::Opened::open(&plan.root)?,
            guest: Some(sources::open(&plan.guest)?),
            workspace,
            // Without the mapping these show what everybody on the host may read.
            base_git: mapped(&plan.base_git)?.map(|(tree, _)| tree),
            agents: mapped(&plan.agents)?.map(|(tree, _)| tree),
        })
    }
}

/// Builds a tree in the mount namespace everybody on the host shares, for a daemon that is to
/// find it there. What is mounted propagates to nobody. Blocking.
pub(crate) fn build_shared(plan: &TreePlan) -> Result<Tree, Failure> {
    use nix::sched::{CloneFlags, unshare};
    let step = "make the sandbox's tree";
    let build = || {
        unshare(CloneFlags::CLONE_FS).step(step)?;
        let base = plan
            .base
            .to_str()
            .ok_or_else(|| Failure::new(step, "its path is not text"))?;
        bind(base, base, MsFlags::empty())?;
        mounts::private(base)?;
        plan.build()
    };
    let built = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("stockade-tree".to_owned());
        let thread = thread.spawn_scoped(scope, build).step(step)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Failure::new(step, "the thread for it panicked")))
    });
    if built.is_err() {
        let _ = remove(&plan.base);
    }
    built
}

/// Unmounts whatever is mounted at `base`, with everything below. Fine if nothing is.
pub(crate) fn remove(base: &Path) -> io::Result<()> {
    // Once for the tree and once for the mount that keeps it from propagating.
    for _ in 0..8 {
        // Detaching takes what is mounted below along.
        match umount2(base, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more), or not there.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!("{} is still a mount point", base.display())))
}

/// Whether a path of the host is a plain directory that a tree may be mounted on.
pub(crate) fn is_place(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}
