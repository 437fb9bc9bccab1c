//! Core dumps: memory that leaves a process when it crashes.

use std::{collections::BTreeSet, fs, path::PathBuf};

use crate::{
    args::Args,
    sys::{alarm, exit, fork, kill, try_call, wait},
    tell::{Outcome, attempt, refused},
};

/// RLIM_INFINITY (getrlimit(2)).
const UNLIMITED: u64 = u64::MAX;

/// Crashes with every limit on dumps that can be had: as high as it goes, for a file; and none, with
/// which the kernel starts the program a `core_pattern` beginning with `|` names, on the host and as
/// its root (core(5)).
pub(crate) fn core(_: &Args) {
    attempt("core.unlimited", crash(&[[UNLIMITED, UNLIMITED]]));
    attempt("core.most", crash(&[]));
    attempt("core.zero", crash(&[[0, UNLIMITED], [0, 1], [0, 0]]));
}

/// Crashes under the first of these limits that can be set, or else under the soft limit raised to
/// the hard one. It succeeded when the kernel says that something took the dump, or a file is left.
fn crash(limits: &[[u64; 2]]) -> Outcome {
    let before = files();
    let Some(pid) = fork()? else {
        alarm(5);
        limit(limits);
        // A program that was changed before it was started cannot be dumped unless it says so.
        let _ = try_call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE as usize, 1]);
        // One the standard library has no handler for.
        let _ = kill(std::process::id().cast_signed(), libc::SIGABRT);
        exit(0);
    };
    let status = wait(pid);
    let left: Vec<_> = files().difference(&before).cloned().collect();
    for path in &left {
        let _ = fs::remove_file(path);
    }
    if !libc::WIFSIGNALED(status) {
        return refused("it did not crash");
    }
    if let Some(path) = left.first() {
        return Ok(format!("its memory is in {}", path.display()));
    }
    if libc::WCOREDUMP(status) {
        return Ok("the kernel says that its memory was dumped".to_owned());
    }
    refused("it crashed and nothing was dumped")
}

fn limit(limits: &[[u64; 2]]) {
    let core = libc::RLIMIT_CORE as usize;
    let set = |limit: &[u64; 2]| try_call(libc::SYS_prlimit64, &[0, core, limit.as_ptr() as usize, 0]).is_ok();
    if limits.iter().any(set) {
        return;
    }
    let mut now = [0_u64; 2];
    let _ = try_call(libc::SYS_prlimit64, &[0, core, 0, now.as_mut_ptr() as usize]);
    set(&[now[1], now[1]]);
}

/// Files that could be dumps, here and where the pattern says.
fn files() -> BTreeSet<PathBuf> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let elsewhere = PathBuf::from(pattern.trim());
    let elsewhere = elsewhere.parent().filter(|dir| dir.is_absolute()).map(PathBuf::from);
    let dirs = [Some(PathBuf::from(".")), elsewhere].into_iter().flatten();
    let entries = dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let names = entries.map(|entry| entry.path());
    names.filter(|path| path.to_string_lossy().contains("core")).collect()
}
