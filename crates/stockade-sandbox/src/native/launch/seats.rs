//! Places in a sandbox's cgroups, taken without waiting.
//!
//! Moving a process by its number into a cgroup makes the kernel wait for a grace period of all
//! processors, which takes longer than everything else a launcher does. Two ways do without: a
//! process may be born into a group of version 2 (`CLONE_INTO_CGROUP`, Linux 5.7), and in
//! version 1 a process of one thread may move itself by writing `0` to `tasks`.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
};

use super::userns::{self, Cloned};
use crate::{
    cgroup::CgroupDir,
    failure::{Failure, Step},
};

/// The groups of one sandbox, made and without their limits.
pub(super) struct Seats {
    /// `tasks` of each group of version 1.
    tasks: Vec<File>,
    /// The one group of version 2.
    unified: Option<File>,
    /// Groups whose members have to be moved the slow way.
    slow: Vec<CgroupDir>,
}

impl Seats {
    /// Makes the groups.
    pub(super) fn make(groups: &[CgroupDir]) -> Result<Self, Failure> {
        let mut seats = Self {
            tasks: Vec::new(),
            unified: None,
            slow: Vec::new(),
        };
        for group in groups {
            let step = || format!("make the cgroup {}", group.path.display());
            fs::create_dir(&group.path).step(step())?;
            match File::options().write(true).open(group.path.join("tasks")) {
                Ok(tasks) => seats.tasks.push(tasks),
                Err(_) if seats.unified.is_none() => seats.unified = Some(File::open(&group.path).step(step())?),
                Err(_) => seats.slow.push(group.clone()),
            }
        }
        Ok(seats)
    }

    /// Forks into new namespaces and the group of version 2.
    pub(super) fn clone(&mut self, groups: &[CgroupDir], namespaces: libc::c_int) -> io::Result<Cloned> {
        if let Some(group) = &self.unified {
            if let Ok(cloned) = userns::clone_into(namespaces, group.as_raw_fd()) {
                return Ok(cloned);
            }
            // An older kernel, or a filter that lets no clone3 through. If it is something
            // else, the other way says so.
            let unified = groups.iter().filter(|group| !group.path.join("tasks").exists());
            self.slow = unified.cloned().collect();
        }
        userns::clone(namespaces)
    }

    /// For the first process: takes its places in groups of version 1.
    pub(super) fn take(self) -> Result<(), Failure> {
        for mut tasks in self.tasks {
            tasks.write_all(b"0").step("put the sandbox into its cgroup")?;
        }
        Ok(())
    }

    /// For the launcher: writes the limits, and moves the first process where it cannot do so itself.
    pub(super) fn limit(&self, groups: &[CgroupDir], pid: i32) -> Result<(), Failure> {
        for setting in groups.iter().flat_map(|g| g.settings.iter().map(move |s| (g, s))) {
            let (group, setting) = setting;
            let result = fs::write(group.path.join(&setting.file), &setting.value);
            if let (Err(e), false) = (result, setting.optional) {
                return Err(Failure::new(format!("set {} of a cgroup", setting.file), e));
            }
        }
        self.slow.iter().try_for_each(|group| group.add(pid))
    }
}
