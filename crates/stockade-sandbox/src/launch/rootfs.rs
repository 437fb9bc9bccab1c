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
    fs::{self, DirBuilder, Permissions},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    },
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use super::{
    mountapi::{self, NODEV, NOEXEC, NOSUID, RDONLY},
    sources::Sources,
    wire::LaunchSpec,
};
use crate::{
    copy::copy_tree,
    failure::{Failure, Step},
};

/// Host directories with programs. Links among them (merged `/usr`) are made again as links.
const PROGRAMS: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Directories of the new root, in order.
const DIRECTORIES: [&str; 23] = [
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
const HIDDEN_FILES: [&str; 16] = [
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
const HIDDEN_DIRECTORIES: [&str; 8] = ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty"];
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

/// Builds the file system and makes it the calling process's root.
pub(super) fn build(spec: &LaunchSpec, sources: Sources) -> Result<(), Failure> {
    let base = ["/tmp", "/mnt", "/var/tmp", "/run"]
        .into_iter()
        .find(|dir| fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()))
        .ok_or_else(|| Failure::new("find a place for the new root", "no /tmp on this host"))?;
    tmpfs(base, spec.disk_bytes)?;
    chdir(base).step("enter the new root")?;
    skeleton()?;
    bind("r", "r")?;
    programs()?;
    proc()?;
    devices()?;
    attach_sources(spec, sources)?;
    for (from, to, mode) in WRITABLE {
        directory(from, mode)?;
        bind(from, to)?;
    }
    mountapi::restrict("r/dev/shm", NOSUID | NODEV | NOEXEC).step("close /dev/shm to programs")?;
    // Only this mount: what is mounted below stays as it is.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, "r", NONE, flags, NONE).step("make the root read-only")?;
    chdir("r").step("enter the new root")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the host's root")?;
    chdir("/").step("enter the new root")
}

fn tmpfs(target: &str, size: u64) -> Result<(), Failure> {
    let inodes = (size / 4096).clamp(4096, 4 << 20);
    let options = format!("size={size},nr_inodes={inodes},mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| super::explain::first_mount("mount the bounded writable layer", e))
}

fn directory(path: &str, mode: u32) -> Result<(), Failure> {
    let step = || format!("make the directory {path}");
    DirBuilder::new().mode(mode).create(path).step(step())?;
    // Not subject to the umask.
    fs::set_permissions(path, Permissions::from_mode(mode)).step(step())
}

fn link(target: &str, path: &str) -> Result<(), Failure> {
    symlink(target, path).step(format!("make the link {path}"))
}

fn bind(from: &str, to: &str) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, NONE, flags, NONE).step(format!("mount {to}"))
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

fn programs() -> Result<(), Failure> {
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
    hide_directory("r/usr/local/etc")
}

/// Covers a directory with an empty one, where it exists.
fn hide_directory(path: &str) -> Result<(), Failure> {
    if !Path::new(path).is_dir() {
        return Ok(());
    }
    bind("l/empty", path)?;
    mountapi::restrict(path, RDONLY | NOSUID | NODEV | NOEXEC).step(format!("hide {path}"))
}

fn proc() -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "r/proc", Some("proc"), flags, NONE)
        .map_err(|e| Failure::new("mount a fresh /proc", e).with_fix(PROC_FIX))?;
    bind("r/proc/sys", "r/proc/sys")?;
    mountapi::restrict("r/proc/sys", RDONLY | NOSUID | NODEV | NOEXEC).step("make /proc/sys read-only")?;
    for name in HIDDEN_DIRECTORIES {
        hide_directory(&format!("r/proc/{name}"))?;
    }
    for name in HIDDEN_FILES {
        let path = format!("r/proc/{name}");
        if Path::new(&path).exists() {
            device("null", &path)?;
        }
    }
    Ok(())
}

fn devices() -> Result<(), Failure> {
    for name in DEVICES {
        let inside = format!("r/dev/{name}");
        fs::write(&inside, "").step(format!("make {inside}"))?;
        device(name, &inside)?;
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

fn attach(tree: &OwnedFd, at: &str) -> Result<(), Failure> {
    mountapi::attach(tree.as_fd(), at).step(format!("attach {at}"))
}

fn attach_sources(spec: &LaunchSpec, sources: Sources) -> Result<(), Failure> {
    attach(&sources.etc, "l/etc")?;
    read_only("l/etc", "r/etc")?;
    if let Some(tree) = &sources.base_git {
        attach(tree, "l/base.git")?;
        read_only("l/base.git", "r/run/stockade/base.git")?;
    }
    if let Some(tree) = &sources.agents {
        attach(tree, "l/agents")?;
        read_only("l/agents", "r/opt/agents")?;
    }
    match &sources.workspace {
        Some(tree) => {
            attach(tree, "l/workspace")?;
            workspace(spec.copy_workspace)
        }
        None => bind("w/upper", "r/workspace"),
    }
}

fn overlay(target: &str, flags: MsFlags, options: &str) -> Result<(), Failure> {
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

fn workspace(copy: bool) -> Result<(), Failure> {
    let step = "make the workspace";
    // Without user attributes the upper layer could not replace a directory.
    if !copy && mountapi::keeps_user_attributes("w/upper").step(step)? {
        let options = "lowerdir=l/workspace,upperdir=w/upper,workdir=w/work";
        return overlay("r/workspace", MsFlags::empty(), options);
    }
    copy_tree(Path::new("l/workspace"), Path::new("w/upper"), None).map_err(|e| {
        let cause = match e.raw_os_error() {
            Some(libc::ENOSPC) => "it does not fit into the sandbox's disk limit".to_owned(),
            _ => e.to_string(),
        };
        Failure::new("copy the workspace", cause)
    })?;
    bind("w/upper", "r/workspace")
}
