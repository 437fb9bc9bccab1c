//! Noticing that a sandbox's memory ran out.
//!
//! Version 2 ends the whole group then (`memory.oom.group`). Version 1 kills one process; its
//! launcher hears of it and ends the rest.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    slice, thread,
    time::{Duration, Instant},
};

use super::group::CgroupDir;

/// Why a sandbox ended whose memory ran out.
pub(crate) const OUT_OF_MEMORY: &str = "its memory ran out: it used more than its limit on memory";
/// Longest between the kernel's word that memory is used up and its first kill.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Whether the kernel has killed something of a sandbox because its memory was used up.
pub(crate) fn out_of_memory(groups: &[CgroupDir]) -> bool {
    let count = |group: &CgroupDir| {
        let text = group
            .read("memory.events")
            .or_else(|| group.read("memory.oom_control"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse::<u64>().ok()
    };
    groups.iter().filter_map(count).any(|count| count > 0)
}

/// Tells when the memory of a group of version 1 is used up, so that the sandbox can be
/// ended as a whole there too.
pub(crate) struct OomWatch {
    event: OwnedFd,
    group: CgroupDir,
}

impl OomWatch {
    /// Watches the group that limits memory. `None` where there is none, or where the kernel
    /// ends the whole group itself.
    pub(crate) fn start(groups: &[CgroupDir]) -> Option<Self> {
        let group = groups.iter().find(|group| group.has("memory.oom_control"))?;
        let control = File::open(group.path.join("memory.oom_control")).ok()?;
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        // SAFETY: makes a descriptor, which is ours; a failure is a negative number.
        let event = unsafe {
            match libc::eventfd(0, flags) {
                fd if fd >= 0 => OwnedFd::from_raw_fd(fd),
                _ => return None,
            }
        };
        let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        fs::write(group.path.join("cgroup.event_control"), order).ok()?;
        let group = group.clone();
        Some(Self { event, group })
    }

    /// Takes the news in; whether the kernel has killed something. It tells a moment before it
    /// does.
    pub(crate) fn is_over(&self) -> bool {
        let mut count = [0; 8];
        if nix::unistd::read(&self.event, &mut count).is_err() {
            return false;
        }
        let begun = Instant::now();
        loop {
            if out_of_memory(slice::from_ref(&self.group)) {
                return true;
            }
            if begun.elapsed() > A_MOMENT {
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_lack_of_memory_are_counted_in_both_versions() {
        for (file, text, expected) in [
            (
                "memory.events",
                "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n",
                false,
            ),
            ("memory.events", "low 0\noom 1\noom_kill 3\noom_group_kill 1\n", true),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
                false,
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                true,
            ),
        ] {
            let dir = tempfile::tempdir().expect("temp dir");
            fs::write(dir.path().join(file), text).expect("writes");
            let path = dir.path().to_owned();
            let groups = [CgroupDir {
                path,
                settings: Vec::new(),
            }];
            assert_eq!(out_of_memory(&groups), expected, "{text}");
        }
    }
}
