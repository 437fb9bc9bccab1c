//! Limits through cgroups: version 2, version 1 and the mix of both, without a daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use stockade_domain::SandboxLimits;

use crate::failure::{Failure, Step};

/// Period of CPU bandwidth control in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Child group the supervising process itself moves to where version 2 wants the
/// parent empty.
const SUPERVISOR: &str = "stockade-supervisor";

/// One cgroup of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CgroupDir {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Files to write in it, in order. A missing optional file is not an error.
    pub(crate) settings: Vec<Setting>,
}

/// One value of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    pub(crate) file: String,
    pub(crate) value: String,
    pub(crate) optional: bool,
}

/// What this host lets us limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CgroupPlan {
    parents: Vec<Parent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    version: u8,
    path: PathBuf,
    controllers: Vec<&'static str>,
}

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

impl CgroupPlan {
    /// Looks at the host. May enable controllers below the own group and, in an otherwise
    /// empty group of version 2, move this process one level down.
    pub(crate) fn discover() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mounts = Mounts::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let mut plan = Self::default();
        plan.version_1(&mounts);
        if let Some(own) = &mounts.unified {
            plan.version_2(own, &mounts.unified_root);
        }
        plan
    }

    pub(crate) fn enforces(&self, controller: &str) -> bool {
        let mut all = self.parents.iter().flat_map(|p| &p.controllers);
        all.any(|c| *c == controller)
    }

    fn version_1(&mut self, mounts: &Mounts) {
        for (controllers, own) in &mounts.version_1 {
            let ours: Vec<_> = CONTROLLERS
                .into_iter()
                .filter(|c| controllers.iter().any(|have| have == c))
                .collect();
            if !ours.is_empty() && is_writable(own) {
                self.parents.push(Parent {
                    version: 1,
                    path: own.clone(),
                    controllers: ours,
                });
            }
        }
    }

    fn version_2(&mut self, own: &Path, root: &Path) {
        let wanted: Vec<_> = CONTROLLERS.into_iter().filter(|c| !self.enforces(c)).collect();
        let base = if own.ends_with(SUPERVISOR) {
            own.parent().unwrap_or(own)
        } else {
            own
        };
        // The own group where it can be had (delegation), else, as root, the top one.
        for base in [base, root] {
            if wanted.is_empty() || !is_writable(base) {
                continue;
            }
            let enabled = enable(base, &wanted);
            if !enabled.is_empty() {
                self.parents.push(Parent {
                    version: 2,
                    path: base.to_owned(),
                    controllers: enabled,
                });
                return;
            }
        }
    }

    /// The groups one sandbox of that name gets.
    pub(crate) fn groups(&self, name: &str, limits: &SandboxLimits) -> Vec<CgroupDir> {
        let of = |parent: &Parent| CgroupDir {
            path: parent.path.join(format!("stockade-{name}")),
            settings: parent
                .controllers
                .iter()
                .flat_map(|c| settings(parent.version, c, limits))
                .collect(),
        };
        self.parents.iter().map(of).collect()
    }
}

fn settings(version: u8, controller: &str, limits: &SandboxLimits) -> Vec<Setting> {
    let set = |file: &str, value: String, optional| Setting {
        file: file.to_owned(),
        value,
        optional,
    };
    let memory = limits.memory_bytes.to_string();
    let quota = (limits.cpu_millis.saturating_mul(CPU_PERIOD) / 1000).max(1000);
    match (version, controller) {
        (1, "memory") => vec![
            set("memory.limit_in_bytes", memory.clone(), false),
            set("memory.memsw.limit_in_bytes", memory, true),
        ],
        (1, "cpu") => vec![
            set("cpu.cfs_period_us", CPU_PERIOD.to_string(), false),
            set("cpu.cfs_quota_us", quota.to_string(), false),
        ],
        (2, "memory") => vec![
            set("memory.max", memory, false),
            set("memory.swap.max", "0".to_owned(), true),
            // A sandbox that is out of memory ends as a whole or not at all is wrong here:
            // the biggest process goes, the Guest stays and says so.
            set("memory.oom.group", "0".to_owned(), true),
        ],
        (2, "cpu") => vec![set("cpu.max", format!("{quota} {CPU_PERIOD}"), false)],
        (_, "pids") => vec![set("pids.max", limits.pids.to_string(), false)],
        _ => Vec::new(),
    }
}

/// Enables controllers for the children of `base`; returns those that are then there.
fn enable(base: &Path, wanted: &[&'static str]) -> Vec<&'static str> {
    let have = |file: &str| {
        let text = fs::read_to_string(base.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let available = have("cgroup.controllers");
    for controller in wanted {
        if !available.iter().any(|c| c == controller) {
            continue;
        }
        let control = base.join("cgroup.subtree_control");
        let line = format!("+{controller}");
        let busy = fs::write(&control, &line).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY));
        if busy && move_down(base).is_ok() {
            let _ = fs::write(&control, &line);
        }
    }
    let enabled = have("cgroup.subtree_control");
    wanted
        .iter()
        .copied()
        .filter(|c| enabled.iter().any(|e| e == c))
        .collect()
}

/// Version 2 gives controllers only to children of a group without processes.
fn move_down(base: &Path) -> io::Result<()> {
    let supervisor = base.join(SUPERVISOR);
    match fs::create_dir(&supervisor) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::write(supervisor.join("cgroup.procs"), std::process::id().to_string())
}

fn is_writable(dir: &Path) -> bool {
    nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK).is_ok()
        && nix::unistd::access(&dir.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Where this process's own groups are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    version_1: Vec<(Vec<String>, PathBuf)>,
    unified: Option<PathBuf>,
    unified_root: PathBuf,
}

impl Mounts {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
    fn parse(mountinfo: &str, own: &str) -> Self {
        let own: Vec<(Vec<&str>, &str)> = own
            .lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                Some((controllers.split(',').collect(), path))
            })
            .collect();
        let mut out = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let before: Vec<_> = before.split(' ').collect();
            let after: Vec<_> = after.split(' ').collect();
            let (Some(root), Some(point), Some(kind), Some(options)) =
                (before.get(3), before.get(4), after.first(), after.get(2))
            else {
                continue;
            };
            let below = |path: &str| {
                let relative = Path::new(path).strip_prefix(root).ok()?;
                Some(Path::new(point).join(relative))
            };
            match *kind {
                "cgroup2" => {
                    let path = own.iter().find(|(c, _)| *c == [""]).map_or("/", |o| o.1);
                    out.unified = below(path);
                    out.unified_root = PathBuf::from(point);
                }
                "cgroup" => {
                    let options: Vec<_> = options.split(',').collect();
                    let group = own
                        .iter()
                        .find(|(c, _)| !c.is_empty() && c.iter().all(|c| options.contains(c)));
                    if let Some((controllers, path)) = group
                        && let Some(path) = below(path)
                    {
                        let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
                        out.version_1.push((controllers, path));
                    }
                }
                _ => {}
            }
        }
        out
    }
}

impl CgroupDir {
    /// Makes the group and writes its limits.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let step = || format!("make the cgroup {}", self.path.display());
        fs::create_dir(&self.path).step(step())?;
        for setting in &self.settings {
            let result = fs::write(self.path.join(&setting.file), &setting.value);
            if let (Err(e), false) = (result, setting.optional) {
                return Err(Failure::new(format!("set {} of a cgroup", setting.file), e));
            }
        }
        Ok(())
    }

    /// Moves a process in.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Failure> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).step("put the sandbox into its cgroup")
    }

    /// Kills what is still in the group and removes it. No error if it is gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match fs::remove_dir(&self.path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {}
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => return Ok(()),
            }
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            let members = fs::read_to_string(self.path.join("cgroup.procs"));
            for pid in members.unwrap_or_default().lines().flat_map(str::parse) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
22 27 0:21 / /proc rw,relatime - proc proc rw";

    #[test]
    fn hybrid_hosts_are_read_with_the_own_path() {
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/";
        let mounts = Mounts::parse(HYBRID, own);
        assert_eq!(
            mounts.version_1[0],
            (vec!["memory".to_owned()], "/sys/fs/cgroup/memory/a/b".into())
        );
        assert_eq!(mounts.version_1[1].1, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree_is_read_relative_to_it() {
        let info = "41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let mounts = Mounts::parse(info, "0::/box/app.scope");
        assert_eq!(mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/app.scope")));
        assert_eq!(Mounts::parse(info, "0::/elsewhere").unified, None);
    }

    #[test]
    fn limits_become_the_files_of_each_version() {
        let limits = SandboxLimits {
            memory_bytes: 1 << 30,
            pids: 64,
            cpu_millis: 1500,
            disk_bytes: 1,
        };
        let all = |version| -> Vec<_> {
            let of = |c| settings(version, c, &limits);
            let all = CONTROLLERS.into_iter().flat_map(of);
            all.filter(|s| !s.optional).map(|s| (s.file, s.value)).collect()
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            all(2),
            [
                pair("memory.max", "1073741824"),
                pair("pids.max", "64"),
                pair("cpu.max", "150000 100000"),
            ]
        );
        assert!(all(1).contains(&pair("cpu.cfs_quota_us", "150000")));
    }
}
