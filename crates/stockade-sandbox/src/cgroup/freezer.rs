//! Stopping a whole sandbox where it stands.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use super::group::CgroupDir;
use crate::failure::{Failure, Step};

/// Longest the kernel may take to stop everything.
const LONGEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(200);

/// Whether one of the groups can stop what is in it.
pub(crate) fn can_freeze(groups: &[CgroupDir]) -> bool {
    groups.iter().any(|group| Freezer::of(group).is_some())
}

/// Stops every process of a sandbox or lets them go on, and returns when that is so.
/// Idempotent. On failure everything goes on.
pub(crate) fn freeze(groups: &[CgroupDir], frozen: bool) -> Result<(), Failure> {
    let step = if frozen {
        "pause the sandbox"
    } else {
        "resume the sandbox"
    };
    let freezer = groups.iter().find_map(Freezer::of);
    let freezer = freezer.ok_or_else(|| Failure::new(step, "it has no cgroup of its own"))?;
    let changed = freezer.change(frozen);
    if frozen && changed.is_err() {
        let _ = freezer.change(false);
    }
    changed.step(step)
}

/// A group that can be stopped.
enum Freezer<'g> {
    /// `cgroup.freeze` and the line `frozen` of `cgroup.events` (kernel: cgroup-v2.rst).
    Version2(&'g CgroupDir),
    /// `freezer.state` (kernel: cgroup-v1/freezer-subsystem.rst).
    Version1(&'g CgroupDir),
}

impl<'g> Freezer<'g> {
    fn of(group: &'g CgroupDir) -> Option<Self> {
        if group.has("cgroup.freeze") {
            Some(Self::Version2(group))
        } else if group.has("freezer.state") {
            Some(Self::Version1(group))
        } else {
            None
        }
    }

    fn change(&self, frozen: bool) -> io::Result<()> {
        let begun = Instant::now();
        self.ask(frozen)?;
        while !self.is(frozen)? {
            if begun.elapsed() > LONGEST {
                return Err(io::Error::other(format!("not done within {} s", LONGEST.as_secs())));
            }
            thread::sleep(PAUSE);
            if let Self::Version1(_) = self {
                // Stays FREEZING when a process was busy or was forked meanwhile: ask again.
                self.ask(frozen)?;
            }
        }
        Ok(())
    }

    fn ask(&self, frozen: bool) -> io::Result<()> {
        match self {
            Self::Version2(group) => fs::write(group.path.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            Self::Version1(group) => {
                let state = if frozen { "FROZEN" } else { "THAWED" };
                fs::write(group.path.join("freezer.state"), state)
            }
        }
    }

    fn is(&self, frozen: bool) -> io::Result<bool> {
        match self {
            Self::Version2(group) => {
                let events = fs::read_to_string(group.path.join("cgroup.events"))?;
                Ok(events.lines().any(|line| line == "frozen 1") == frozen)
            }
            Self::Version1(group) => {
                let state = fs::read_to_string(group.path.join("freezer.state"))?;
                Ok(state.trim() == if frozen { "FROZEN" } else { "THAWED" })
            }
        }
    }
}

/// Lets processes that were killed while they were stopped die: in version 1 they do not, and in
/// version 2 nothing needs to be done.
pub(crate) fn let_die(groups: &[CgroupDir]) {
    for group in groups.iter().filter(|group| group.has("freezer.state")) {
        let _ = fs::write(group.path.join("freezer.state"), "THAWED");
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cgroup::mounts::Mounts;

    #[test]
    fn a_group_without_a_freezer_says_so() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().to_owned();
        let groups = [CgroupDir {
            path,
            settings: Vec::new(),
        }];
        assert!(!can_freeze(&groups));
        let failure = freeze(&groups, true).expect_err("no freezer");
        assert!(failure.cause.contains("no cgroup"), "{failure:?}");
        fs::write(dir.path().join("freezer.state"), "THAWED").expect("writes");
        assert!(can_freeze(&groups));
    }

    /// Where groups of both versions can be made on this host; none for an ordinary user.
    fn parents() -> Vec<PathBuf> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mounts = Mounts::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let old = mounts
            .version_1
            .into_iter()
            .filter(|(names, _)| names.iter().any(|name| name == "freezer"));
        let all = old.map(|(_, path)| path).chain(mounts.unified);
        all.filter(|path| nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok())
            .collect()
    }

    /// Bytes a process that counts has written so far.
    fn progress(file: &std::path::Path) -> u64 {
        fs::metadata(file).map_or(0, |meta| meta.len())
    }

    #[test]
    fn both_versions_stop_a_process_and_let_it_go_on_and_die() {
        for (number, parent) in parents().into_iter().enumerate() {
            let path = parent.join(format!("stockade-freezer-test-{}-{number}", std::process::id()));
            let group = CgroupDir {
                path,
                settings: Vec::new(),
            };
            group.create().expect("makes the group");
            let dir = tempfile::tempdir().expect("temp dir");
            let file = dir.path().join("ticks");
            let script = format!("while :; do printf x >> {}; sleep 0.005; done", file.display());
            let mut child = std::process::Command::new("sh")
                .args(["-c", &script])
                .spawn()
                .expect("starts");
            group.add(i32::try_from(child.id()).expect("pid")).expect("moves");
            let groups = [group.clone()];
            let runs = || {
                let before = progress(&file);
                thread::sleep(Duration::from_millis(150));
                progress(&file) > before
            };
            assert!(runs(), "{}", parent.display());
            freeze(&groups, true).expect("freezes");
            assert!(!runs(), "{} stands", parent.display());
            freeze(&groups, false).expect("thaws");
            assert!(runs(), "{} goes on", parent.display());
            freeze(&groups, true).expect("freezes");
            child.kill().expect("kills");
            let_die(&groups);
            child.wait().expect("dies though it was frozen");
            group.remove().expect("removes the group with its last sleeper");
        }
    }
}
