//! The cgroups of one sandbox: ours, and those `runc` makes whether we want them or not.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use stockade_domain::SandboxLimits;

use super::runtime::Runtime;
use crate::{
    cgroup::{self, CgroupDir, CgroupPlan},
    failure::{Failure, Step},
};

/// Threads gVisor may have on the host for each of the sandbox's, and beside them. Where it traces
/// (the platform `ptrace`) each process it runs has a thread for each thread of gVisor's that ever
/// ran it, so they grow with the square of what is busy at once: 60 with nothing in it, 1,250 for
/// 70 busy processes and 18,000 for 180 were seen. How many the sandbox may have is for gVisor's own
/// kernel to say; this keeps the rest of the host in threads, and who needs more is ended by
/// name ([`Groups::out_of_threads`]).
const GVISOR_FACTOR: u64 = 4;
const GVISOR_THREADS: u64 = 2048;

/// The cgroups of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// With the limits; everything of the sandbox is in them.
    limiting: Vec<CgroupDir>,
    /// Those the runtime is started in, and so all it starts.
    entered: Vec<PathBuf>,
    /// Where a runtime that makes cgroups is to make them, below each hierarchy's root. Where
    /// that is one of ours it finds it there, with its limits.
    runtime_path: Option<PathBuf>,
    /// All that have to be removed.
    all: Vec<CgroupDir>,
}

impl Groups {
    pub(super) fn plan<'p>(
        runtime: Runtime,
        plan: &CgroupPlan,
        name: &str,
        limits: &SandboxLimits,
        on_disk: impl IntoIterator<Item = &'p Path>,
    ) -> Self {
        let pids = match runtime {
            // Of these `crun` itself, which waits in the container's groups, is one.
            Runtime::Runc | Runtime::Crun => limits.pids,
            Runtime::Runsc => limits.pids.saturating_mul(GVISOR_FACTOR).saturating_add(GVISOR_THREADS),
        };
        let limits = SandboxLimits { pids, ..*limits };
        let limiting = plan.groups(name, &limits, on_disk);
        let mut groups = Self {
            entered: limiting.iter().map(|group| group.path.clone()).collect(),
            runtime_path: None,
            all: limiting.clone(),
            limiting,
        };
        if runtime.makes_cgroups() {
            let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            groups.share(name, &hierarchies(&mountinfo));
        }
        groups
    }

    /// Arranges with a runtime that makes cgroups in every hierarchy there is, at one place below
    /// the root of each.
    fn share(&mut self, name: &str, hierarchies: &[Hierarchy]) {
        let first = self.limiting.first().and_then(|group| {
            let hierarchy = hierarchies.iter().rev().find(|point| group.path.starts_with(point))?;
            group.path.strip_prefix(hierarchy).ok()
        });
        let place = first.map_or_else(|| PathBuf::from(format!("stockade-{name}")), Path::to_path_buf);
        let made = hierarchies.iter().map(|point| point.join(&place));
        let others: Vec<_> = made
            .filter(|path| self.limiting.iter().all(|g| g.path != *path))
            .collect();
        self.all.extend(others.into_iter().map(|path| CgroupDir {
            path,
            settings: Vec::new(),
        }));
        self.entered.clear();
        self.runtime_path = Some(Path::new("/").join(place));
    }

    pub(super) fn runtime_path(&self) -> Option<&Path> {
        self.runtime_path.as_deref()
    }

    pub(super) fn limiting(&self) -> &[CgroupDir] {
        &self.limiting
    }

    pub(super) fn all(&self) -> &[CgroupDir] {
        &self.all
    }

    pub(super) fn create(&self) -> Result<(), Failure> {
        self.limiting.iter().try_for_each(CgroupDir::create)
    }

    /// Puts a process into those that nobody is in.
    pub(super) fn fill(&self, pid: impl FnOnce() -> io::Result<i32>) -> Result<(), Failure> {
        let empty =
            |group: &&CgroupDir| fs::read_to_string(group.path.join("cgroup.procs")).is_ok_and(|p| p.is_empty());
        let empty: Vec<_> = self.limiting.iter().filter(empty).collect();
        if empty.is_empty() {
            return Ok(());
        }
        let pid = pid().step("find the sandbox's first process")?;
        empty.into_iter().try_for_each(|group| group.add(pid))
    }

    /// The files through which the runtime enters the groups it is started in.
    pub(super) fn doors(&self) -> Result<Vec<OwnedFd>, Failure> {
        let open = |group: &PathBuf| {
            let file = OpenOptions::new().write(true).open(group.join("cgroup.procs"));
            file.map(OwnedFd::from).step("open a cgroup")
        };
        self.entered.iter().map(open).collect()
    }

    /// Whether a thread was refused on the host because the sandbox had as many as it may.
    pub(super) fn out_of_threads(&self) -> bool {
        cgroup::limits_hit(&self.limiting).contains(&"pids")
    }

    /// Kills what is in them and removes them. Blocking.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for group in &self.all {
            // All are tried, whatever becomes of one.
            let removed = group.remove().step("remove a cgroup");
            outcome = outcome.and(removed);
        }
        outcome
    }
}

/// Where a hierarchy of cgroups is mounted.
type Hierarchy = PathBuf;

/// The hierarchies in `/proc/self/mountinfo` (proc(5)).
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let read = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let point = before.split(' ').nth(4)?;
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    };
    mountinfo.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(paths: &[&str]) -> Groups {
        let group = |path: &&str| CgroupDir {
            path: path.into(),
            settings: Vec::new(),
        };
        let limiting: Vec<_> = paths.iter().map(group).collect();
        Groups {
            entered: paths.iter().map(PathBuf::from).collect(),
            runtime_path: None,
            all: limiting.clone(),
            limiting,
        }
    }

    fn all(groups: &Groups) -> Vec<&str> {
        groups.all.iter().filter_map(|group| group.path.to_str()).collect()
    }

    #[test]
    fn a_runtime_meets_our_groups_where_it_makes_its_own() {
        let info = "30 25 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let mut groups = groups(&[
            "/sys/fs/cgroup/memory/a/stockade-x",
            "/sys/fs/cgroup/unified/stockade-x",
        ]);
        groups.share("x", &hierarchies(info));
        assert_eq!(groups.runtime_path(), Some(Path::new("/a/stockade-x")));
        assert!(groups.entered.is_empty());
        let expected = [
            "/sys/fs/cgroup/memory/a/stockade-x",
            "/sys/fs/cgroup/unified/stockade-x",
            "/sys/fs/cgroup/devices/a/stockade-x",
            "/sys/fs/cgroup/unified/a/stockade-x",
        ];
        assert_eq!(all(&groups), expected);
    }

    #[test]
    fn with_version_2_alone_there_is_one_group() {
        let info = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw";
        let mut groups = groups(&["/sys/fs/cgroup/system.slice/x.service/stockade-x"]);
        groups.share("x", &hierarchies(info));
        let path = Path::new("/system.slice/x.service/stockade-x");
        assert_eq!(groups.runtime_path(), Some(path));
        assert_eq!(all(&groups), ["/sys/fs/cgroup/system.slice/x.service/stockade-x"]);
    }
}
