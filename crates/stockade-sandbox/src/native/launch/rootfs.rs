//! The file system a sandbox sees.
//!
//! Everything writable is one tmpfs with a size: `/tmp`, the home, shared memory and the
//! upper layer of `/workspace`. `/` itself is read-only, so that nobody can rename
//! a directory that holds a mount point. Programs come from the host's `/usr`, settings
//! from a generated `/etc`, and nothing else of the host is there.
//!
//! Host paths must not show in `/proc/self/mountinfo`. A bind mount would show where its
//! root is on the host, so host directories other than `/usr` appear through overlays,
//! whose options are relative to a directory that is gone afterwards.

use std::{
    fs::{self, DirBuilder},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, symlink},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, mknod, umask},
    unistd::{chdir, pivot_root},
};

use super::{
    image, lists,
    mountapi::{self, NODEV, NOEXEC, NOSUID, RDONLY},
    snapshot::note_kind,
    sources::Sources,
    wire::LaunchSpec,
};
use crate::{
    copy::copy_tree,
    failure::{Failure, Step},
};

/// Host directories with programs. Links among them (merged `/usr`) are made again as links.
pub(crate) const PROGRAMS: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Directories of the new root, in order.
pub(crate) const DIRECTORIES: [&str; 23] = [
    "dev",
    "dev/pts",
    "dev/shm",
    "etc",
    "home",
    "home/agent",
    "mnt",
    "opt",
    "opt/agents",
    "proc",
    "root",
    "run",
    "run/stockade",
    "run/stockade/base.git",
    "srv",
    "sys",
    "tmp",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/tmp",
    "workspace",
];
/// Files of `/proc` that tell about or act on the host.
pub(crate) const HIDDEN_FILES: [&str; 17] = [
    "interrupts",
    "kcore",
    "keys",
    "key-users",
    "kallsyms",
    "kmsg",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
    "cmdline",
    "swaps",
];
pub(crate) const HIDDEN_DIRECTORIES: [&str; 9] = [
    "acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "tty",
];
const WRITABLE: [(&str, &str, u32); 4] = [
    ("d/tmp", "r/tmp", 0o1777),
    ("d/var-tmp", "r/var/tmp", 0o1777),
    ("d/shm", "r/dev/shm", 0o1777),
    ("d/home", "r/home/agent", 0o755),
];

const NONE: Option<&str> = None;
const OVERLAY_FIX: &str = "use Linux 5.12 or later with CONFIG_OVERLAY_FS, on which users may \
mount overlayfs in their own namespace";
const PROC_FIX: &str = "the host hides parts of its /proc (as containers do), and then the kernel \
gives no process in it a fresh one: run stockade on the host itself, or give its container an \
unmasked /proc (docker run --security-opt systempaths=unconfined)";

/// Where a sandbox that waits for its run keeps what the mounts of its run are made of.
const STAGE: &str = "/mnt";

/// Builds the file system and makes it the calling process's root. Of a warm sandbox, what
/// comes from its run is missing until [`complete`]. The root of the writable layer, which has no
/// path any more.
pub(super) fn build(spec: &LaunchSpec, sources: Sources) -> Result<OwnedFd, Failure> {
    let base = ["/tmp", "/mnt", "/var/tmp", "/run"]
        .into_iter()
        .find(|dir| fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()))
        .ok_or_else(|| Failure::new("find a place for the new root", "no /tmp on this host"))?;
    // What is made here gets the very mode it is made with.
    let mask = umask(Mode::empty());
    tmpfs(base, spec.disk_bytes)?;
    chdir(base).step("enter the new root")?;
    let layer = fs::File::open(".").step("open the writable layer")?;
    skeleton()?;
    for (from, _, mode) in WRITABLE {
        directory(from, mode)?;
    }
    if let Some(restore) = &sources.restore {
        restore.fill()?;
    }
    bind("r", "r")?;
    lay_programs(&sources)?;
    devices()?;
    proc()?;
    attach_sources(&sources, "r")?;
    // The host's settings are in an overlay already; a second one over it would stack three deep.
    lists::open(if sources.etc.is_some() { "l" } else { "r" }, Some("r"), None)?;
    if spec.warm {
        bind_one(".", &format!("r{STAGE}"))?;
    } else {
        workspace(&sources, "r", spec.copy_workspace)?;
    }
    for (from, to, _) in WRITABLE {
        bind(from, to)?;
    }
    mountapi::restrict("r/dev/shm", NOSUID | NODEV | NOEXEC).step("close /dev/shm to programs")?;
    // Only this mount: what is mounted below stays as it is.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, "r", NONE, flags, NONE).step("make the root read-only")?;
    umask(mask);
    chdir("r").step("enter the new root")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the host's root")?;
    chdir("/").step("enter the new root")?;
    Ok(layer.into())
}

/// Adds what comes from the run to a warm sandbox. The caller is in the sandbox's user and mount
/// namespaces and is its user.
pub(super) fn complete(sources: Sources, disk_bytes: u64, copy: bool) -> Result<(), Failure> {
    let mask = umask(Mode::empty());
    chdir(STAGE).step("enter the stage")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = bounds(disk_bytes);
    mount(NONE, STAGE, NONE, flags, Some(options.as_str())).step("bound the writable layer")?;
    attach_sources(&sources, "")?;
    workspace(&sources, "", copy)?;
    umask(mask);
    chdir("/").step("leave the stage")?;
    umount2(STAGE, MntFlags::MNT_DETACH).step("remove the stage")
}

/// Size and number of files of the writable layer.
fn bounds(size: u64) -> String {
    let inodes = (size / 4096).clamp(4096, 4 << 20);
    format!("size={size},nr_inodes={inodes}")
}

fn tmpfs(target: &str, size: u64) -> Result<(), Failure> {
    let options = bounds(size) + ",mode=0755";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| super::explain::first_mount("mount the bounded writable layer", e))
}

pub(super) fn directory(path: &str, mode: u32) -> Result<(), Failure> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(|e| Failure::new(format!("make the directory {path}"), e))
}

fn link(target: &str, path: &str) -> Result<(), Failure> {
    symlink(target, path).map_err(|e| Failure::new(format!("make the link {path}"), e))
}

fn bind(from: &str, to: &str) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, NONE, flags, NONE).map_err(|e| Failure::new(format!("mount {to}"), e))
}

/// Shows a directory without what is mounted below it.
fn bind_one(from: &str, to: &str) -> Result<(), Failure> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).map_err(|e| Failure::new(format!("mount {to}"), e))
}

fn skeleton() -> Result<(), Failure> {
    for dir in [
        "r",
        "d",
        "w",
        "w/upper",
        "w/work",
        "l",
        "l/empty",
        "l/etc",
        "l/workspace",
    ] {
        directory(dir, 0o755)?;
    }
    for dir in ["l/base.git", "l/agents"] {
        directory(dir, 0o755)?;
    }
    for dir in DIRECTORIES {
        directory(&format!("r/{dir}"), 0o755)?;
    }
    for name in DEVICES {
        let path = format!("r/dev/{name}");
        mknod(path.as_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0).step(format!("make {path}"))?;
    }
    for (target, path) in [
        ("/run", "r/var/run"),
        ("/proc/self/fd", "r/dev/fd"),
        ("/proc/self/fd/0", "r/dev/stdin"),
        ("/proc/self/fd/1", "r/dev/stdout"),
        ("/proc/self/fd/2", "r/dev/stderr"),
        ("pts/ptmx", "r/dev/ptmx"),
    ] {
        link(target, path)?;
    }
    Ok(())
}

/// Lays the directories with programs into the new root: all that depends on what the root is
/// made of.
fn lay_programs(sources: &Sources) -> Result<(), Failure> {
    // What covers other directories. A bind mount takes the flags of the mount it shows.
    bind("l/empty", "l/empty")?;
    mountapi::restrict("l/empty", RDONLY | NOSUID | NODEV | NOEXEC).step("make the empty directory read-only")?;
    if !sources.layers.is_empty() {
        return image::lay(&sources.layers);
    }
    for name in PROGRAMS {
        let host = format!("/{name}");
        let inside = format!("r/{name}");
        let Ok(meta) = fs::symlink_metadata(&host) else {
            continue;
        };
        if meta.is_symlink() {
            let target = fs::read_link(&host).step(format!("read the link {host}"))?;
            symlink(target, &inside).step(format!("make the link {host}"))?;
        } else if meta.is_dir() {
            fs::create_dir_all(&inside).step(format!("make the directory {host}"))?;
            bind(&host, &inside)?;
            mountapi::restrict(&inside, RDONLY | NOSUID | NODEV).step(format!("make {host} read-only"))?;
        }
    }
    // Settings of the host's own programs, which may hold secrets.
    hide("l/empty", "r/usr/local/etc")
}

/// Covers a file or a directory, where it exists, with one that is empty.
fn hide(with: &str, path: &str) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    match mount(Some(with), path, NONE, flags, NONE) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => {
            // Of the two names it is the path that may be missing.
            if Path::new(path).symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
                return Err(Failure::new(
                    format!("hide {path}"),
                    "it is not what it is everywhere else",
                ));
            }
            Ok(())
        }
        other => other.map_err(|e| Failure::new(format!("hide {path}"), e)),
    }
}

fn proc() -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "r/proc", Some("proc"), flags, NONE)
        .map_err(|e| Failure::new("mount a fresh /proc", e).with_fix(PROC_FIX))?;
    bind("r/proc/sys", "r/proc/sys")?;
    mountapi::restrict("r/proc/sys", RDONLY | NOSUID | NODEV | NOEXEC).step("make /proc/sys read-only")?;
    for name in HIDDEN_DIRECTORIES {
        hide("l/empty", &format!("r/proc/{name}"))?;
    }
    for name in HIDDEN_FILES {
        hide("r/dev/null", &format!("r/proc/{name}"))?;
    }
    Ok(())
}

fn devices() -> Result<(), Failure> {
    for name in DEVICES {
        device(name, &format!("r/dev/{name}"))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    mount(Some("devpts"), "r/dev/pts", Some("devpts"), flags, Some(options)).step("mount /dev/pts")
}

/// Shows one of the host's harmless devices. Not read-only: that would forbid nothing on
/// a device and make `> /dev/null` fail on some kernels.
fn device(name: &str, at: &str) -> Result<(), Failure> {
    bind(&format!("/dev/{name}"), at)?;
    mountapi::restrict(at, NOSUID | NOEXEC).step(format!("restrict {at}"))
}

pub(super) fn attach(tree: &OwnedFd, at: &str) -> Result<(), Failure> {
    mountapi::attach(tree.as_fd(), at).step(format!("attach {at}"))
}

/// Shows the host's directories read-only below `root`.
fn attach_sources(sources: &Sources, root: &str) -> Result<(), Failure> {
    for (tree, from, to) in [
        (&sources.etc, "l/etc", "etc"),
        (&sources.base_git, "l/base.git", "run/stockade/base.git"),
        (&sources.agents, "l/agents", "opt/agents"),
    ] {
        if let Some(tree) = tree {
            attach(tree, from)?;
            read_only(from, &format!("{root}/{to}"))?;
        }
    }
    Ok(())
}

pub(crate) fn overlay(target: &str, flags: MsFlags, options: &str) -> Result<(), Failure> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("{options},userxattr");
    mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
        .map_err(|e| Failure::new(format!("mount {target}"), e).with_fix(OVERLAY_FIX))
}

/// Shows a directory read-only. The empty second layer is there because an overlay
/// without an upper layer needs two.
fn read_only(from: &str, to: &str) -> Result<(), Failure> {
    overlay(to, MsFlags::MS_RDONLY, &format!("lowerdir={from}:l/empty"))
}

fn workspace(sources: &Sources, root: &str, copy: bool) -> Result<(), Failure> {
    let step = "make the workspace";
    let target = format!("{root}/workspace");
    let Some(tree) = &sources.workspace else {
        note_kind("none")?;
        return bind_one("w/upper", &target);
    };
    attach(tree, "l/workspace")?;
    // Without user attributes the upper layer could not replace a directory.
    if !copy && mountapi::keeps_user_attributes("w/upper").step(step)? {
        note_kind("stacked")?;
        let options = "lowerdir=l/workspace,upperdir=w/upper,workdir=w/work";
        return overlay(&target, MsFlags::empty(), options);
    }
    // What a snapshot of a copy holds is all there is.
    let whole = Path::new("w/kind").exists();
    note_kind("copied")?;
    if whole {
        return bind_one("w/upper", &target);
    }
    copy_tree(Path::new("l/workspace"), Path::new("w/upper"), None).map_err(|e| {
        let cause = match e.raw_os_error() {
            Some(libc::ENOSPC) => "it does not fit into the sandbox's disk limit".to_owned(),
            _ => e.to_string(),
        };
        Failure::new("copy the workspace", cause)
    })?;
    bind_one("w/upper", &target)
}
