//! What the host sees of sandboxes: processes, control groups, mounts, files, namespaces.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Numbers of the processes whose command line holds some text.
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(text.len()).any(|window| window == text.as_bytes())
        })
        .collect()
}

/// Whether a process is there and not a corpse.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the name, which may hold anything but ends with the last bracket.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    !matches!(state, None | Some('Z' | 'X' | 'T' | 't'))
}

/// The control groups of a process, one line for each hierarchy (cgroups(7)).
pub(crate) fn groups_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// The first process of the process namespace another one is in.
pub(crate) fn first_beside(pid: i32) -> Option<i32> {
    let space = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = space(pid)?;
    let first = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        line.and_then(|line| line.split_whitespace().last()) == Some("1")
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| space(*pid).as_ref() == Some(&wanted) && first(pid))
}

/// The namespaces processes are in, by the kernel's name for them: `net:[4026531840]`.
pub(crate) fn namespaces(pids: &[i32]) -> BTreeSet<String> {
    let kinds = ["net", "mnt", "pid", "ipc", "uts", "user"];
    let links = pids
        .iter()
        .flat_map(|pid| kinds.map(|kind| format!("/proc/{pid}/ns/{kind}")));
    let names = links.filter_map(|link| fs::read_link(link).ok());
    names.map(|name| name.display().to_string()).collect()
}

/// Which of some namespaces a process of this host is still in.
pub(crate) fn still_used(namespaces: &BTreeSet<String>) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    self::namespaces(&pids).intersection(namespaces).cloned().collect()
}

/// Control groups whose name holds some text.
pub(crate) fn cgroups_with(text: &str) -> Vec<PathBuf> {
    below(Path::new("/sys/fs/cgroup"), 6, text)
}

/// Mounts of this process's namespace that mention some text.
pub(crate) fn mounts_with(text: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect()
}

/// Files and directories whose name holds some text, so many levels below a directory.
pub(crate) fn below(dir: &Path, depth: u32, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(text) {
            found.push(entry.path());
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path(), depth - 1, text));
        }
    }
    found
}

/// Regular files so many levels below a directory, with what is in them.
pub(crate) fn files_below(dir: &Path, depth: u32) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 1 => found.extend(files_below(&entry.path(), depth - 1)),
            Ok(kind) if kind.is_file() => found.extend(fs::read(entry.path()).map(|bytes| (entry.path(), bytes))),
            _ => {}
        }
    }
    found
}

/// Waits until something is so, for a while; says whether it became so.
pub(crate) async fn eventually(patience: Duration, mut so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if so() {
            return true;
        }
        if begun.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
