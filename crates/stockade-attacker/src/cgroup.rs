//! The way out that begins with a file of the cgroup file system (CVE-2022-0492 and before).

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use crate::{
    args::Args,
    sys::{at, c, in_child, try_call},
    tell::{Outcome, any, attempt, refused},
};

const ROOT: &str = "/sys/fs/cgroup";
/// Directories looked into; a host can have thousands.
const ENOUGH: usize = 400;

fn directories() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(ROOT)];
    let mut at = 0;
    while at < found.len() && found.len() < ENOUGH {
        let entries = fs::read_dir(&found[at]).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(dirs.map(|entry| entry.path()));
        at += 1;
    }
    found.truncate(ENOUGH);
    found
}

/// Opens for writing and writes nothing.
fn open(path: &Path) -> Outcome {
    OpenOptions::new().write(true).open(path)?;
    Ok(format!("opened {} for writing", path.display()))
}

/// Opens files that move processes between groups, run programs on the host or change limits;
/// makes a group; mounts the file system anew.
pub(crate) fn cgroups(_: &Args) {
    let all = directories();
    let files: [(&str, &[&str]); 5] = [
        ("release_agent", &["release_agent"]),
        ("notify_on_release", &["notify_on_release"]),
        ("move", &["cgroup.procs", "tasks"]),
        ("devices", &["devices.allow"]),
        (
            "limits",
            &[
                "memory.max",
                "memory.limit_in_bytes",
                "pids.max",
                "cpu.max",
                "cgroup.freeze",
                "freezer.state",
            ],
        ),
    ];
    for (name, names) in files {
        let paths = all.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
        let there: Vec<_> = paths.filter(|path| fs::symlink_metadata(path).is_ok()).collect();
        any(&format!("write.{name}"), there.iter().map(|path| open(path)));
    }
    any(
        "mkdir",
        all.iter().map(|dir| -> Outcome {
            let path = dir.join(format!("stockade-redteam-{}", std::process::id()));
            fs::create_dir(&path)?;
            let _ = fs::remove_dir(&path);
            Ok(format!("made {}", path.display()))
        }),
    );
    for (name, kind, data) in [
        ("mount-v1", "cgroup", "none,name=stockade-redteam"),
        ("mount-v2", "cgroup2", ""),
    ] {
        attempt(name, in_child(|| mount(kind, data)));
    }
}

/// Mounts a hierarchy where nobody else sees it and looks for the file that names a program.
fn mount(kind: &str, data: &str) -> Outcome {
    let _ = fs::create_dir_all("mnt");
    let own = try_call(libc::SYS_unshare, &[libc::CLONE_NEWNS as usize]);
    if own.is_ok() {
        let (none, root) = (c("none"), c("/"));
        let private = (libc::MS_REC | libc::MS_PRIVATE) as usize;
        try_call(libc::SYS_mount, &[at(&none), at(&root), 0, private, 0])?;
    } else if kind == "cgroup" {
        // Without a namespace of its own a new hierarchy would stay on the host.
        return refused("it cannot even have a mount namespace");
    }
    let [none, point, kind, data] = ["none", "mnt", kind, data].map(c);
    try_call(libc::SYS_mount, &[at(&none), at(&point), at(&kind), 0, at(&data)])?;
    let agent = fs::symlink_metadata("mnt/release_agent").is_ok();
    let _ = try_call(libc::SYS_umount2, &[at(&point), libc::MNT_DETACH as usize]);
    Ok(format!("mounted it; release_agent: {agent}"))
}
