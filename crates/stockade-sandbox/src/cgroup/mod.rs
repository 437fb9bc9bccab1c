//! Limits through cgroups: version 2, version 1 and the mix of both, without a daemon.
//!
//! Where a limit can be had from version 1 as root it is taken from there, because a controller
//! is in one hierarchy at a time. A group of version 2 is made beside it wherever one
//! can be had, also without a controller: only there a frozen process can be killed.

mod disks;
mod freezer;
mod group;
mod hits;
mod memory;
mod mounts;
mod process;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use stockade_domain::SandboxLimits;

use self::{disks::Disk, mounts::Mounts};
pub(crate) use self::{
    freezer::{can_freeze, freeze, let_die},
    group::{CgroupDir, Setting, limits_in_force},
    hits::{OUT_OF_PROCESSES, epitaph, limits_hit},
    memory::{OUT_OF_MEMORY, OomWatch, out_of_memory},
    process::{disk_paths, of_process},
};

/// Period of CPU bandwidth control in microseconds, and the longest the kernel takes.
const CPU_PERIOD: u64 = 100_000;
const LONGEST_CPU_PERIOD: u64 = 1_000_000;
/// Shortest quota the kernel takes, in microseconds.
const SHORTEST_CPU_QUOTA: u64 = 1000;
/// Child group the supervising process itself moves to where version 2 wants the
/// parent empty.
const SUPERVISOR: &str = "stockade-supervisor";

/// What this host lets us limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CgroupPlan {
    parents: Vec<Parent>,
    /// Disks every sandbox reads from.
    disks: Vec<Disk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    version: u8,
    path: PathBuf,
    controllers: Vec<&'static str>,
}

/// What we limit, as version 2 names it, and `freezer`, which version 2 has built in.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "io", FREEZER];
const FREEZER: &str = "freezer";

/// The name version 1 has for a controller.
fn old_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

impl CgroupPlan {
    /// Looks at the host. May enable controllers below the own group and, in an otherwise
    /// empty group of version 2, move this process one level down.
    pub(crate) fn discover() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let mounts = Mounts::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let mut plan = Self {
            disks: disks::behind([Path::new("/usr"), Path::new("/")]),
            ..Self::default()
        };
        plan.version_1(&mounts);
        if let Some(own) = &mounts.unified {
            plan.version_2(own, &mounts.unified_root);
        }
        plan
    }

    /// Whether a limit, or pausing (`freezer`), can be had here.
    pub(crate) fn enforces(&self, controller: &str) -> bool {
        let there = self.parents.iter().any(|p| p.controllers.contains(&controller));
        there && (controller != "io" || !self.disks.is_empty())
    }

    fn version_1(&mut self, mounts: &Mounts) {
        for (controllers, own) in &mounts.version_1 {
            let ours: Vec<_> = CONTROLLERS
                .into_iter()
                .filter(|c| controllers.iter().any(|have| have == old_name(c)))
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
        let wanted: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|c| *c != FREEZER && !self.parents.iter().any(|p| p.controllers.contains(c)))
            .collect();
        let base = if own.ends_with(SUPERVISOR) {
            own.parent().unwrap_or(own)
        } else {
            own
        };
        // The own group where it can be had (delegation), else, as root, the top one.
        for base in [base, root] {
            if !is_writable(base) {
                continue;
            }
            let mut controllers = enable(base, &wanted);
            if controllers.is_empty() && !wanted.is_empty() && base != root && is_writable(root) {
                continue;
            }
            controllers.push(FREEZER);
            for old in &mut self.parents {
                old.controllers.retain(|c| *c != FREEZER);
            }
            self.parents.retain(|old| !old.controllers.is_empty());
            self.parents.push(Parent {
                version: 2,
                path: base.to_owned(),
                controllers,
            });
            return;
        }
    }

    /// The groups one sandbox of that name gets. Its disks are those behind `on_disk` and the
    /// host's programs.
    pub(crate) fn groups<'p>(
        &self,
        name: &str,
        limits: &SandboxLimits,
        on_disk: impl IntoIterator<Item = &'p Path>,
    ) -> Vec<CgroupDir> {
        let mut disks = Vec::new();
        if limits.io_bytes_per_second.is_some() {
            disks = disks::behind(on_disk);
            disks.extend(&self.disks);
            disks.sort_unstable();
            disks.dedup();
        }
        let of = |parent: &Parent| CgroupDir {
            path: parent.path.join(format!("stockade-{name}")),
            settings: parent
                .controllers
                .iter()
                .flat_map(|c| settings(parent.version, c, limits, &disks))
                .collect(),
        };
        let only_io = |parent: &&Parent| parent.controllers == ["io"];
        let needed = self.parents.iter().filter(|p| !(disks.is_empty() && only_io(p)));
        needed.map(of).collect()
    }
}

fn settings(version: u8, controller: &str, limits: &SandboxLimits, disks: &[Disk]) -> Vec<Setting> {
    let set = |file: &str, value: String, optional| Setting {
        file: file.to_owned(),
        value,
        optional,
    };
    let memory = limits.memory_bytes.to_string();
    let (quota, period) = cpu(limits.cpu_millis);
    match (version, controller) {
        (1, "memory") => vec![
            set("memory.limit_in_bytes", memory.clone(), false),
            // Missing where the kernel does not account for swap: then at least not willingly.
            set("memory.memsw.limit_in_bytes", memory, true),
            set("memory.swappiness", "0".to_owned(), true),
        ],
        (1, "cpu") => vec![
            set("cpu.cfs_period_us", period.to_string(), false),
            set("cpu.cfs_quota_us", quota.to_string(), false),
        ],
        (2, "memory") => vec![
            set("memory.max", memory, false),
            set("memory.swap.max", "0".to_owned(), true),
            // Out of memory the sandbox ends as a whole, and its run with that reason: what is
            // left of a half-killed tree would only fail later, and nobody would know why.
            set("memory.oom.group", "1".to_owned(), true),
        ],
        (2, "cpu") => vec![set("cpu.max", format!("{quota} {period}"), false)],
        (_, "pids") => vec![set("pids.max", limits.pids.to_string(), false)],
        (version, "io") => io_settings(version, limits.io_bytes_per_second, disks),
        _ => Vec::new(),
    }
}

/// Quota and period for so many thousandths of a core.
fn cpu(millis: u64) -> (u64, u64) {
    let quota = |period: u64| millis.saturating_mul(period) / 1000;
    if quota(CPU_PERIOD) >= SHORTEST_CPU_QUOTA {
        (quota(CPU_PERIOD), CPU_PERIOD)
    } else {
        let quota = quota(LONGEST_CPU_PERIOD).max(SHORTEST_CPU_QUOTA);
        (quota, LONGEST_CPU_PERIOD)
    }
}

/// Each disk both ways. Version 1 throttles what goes to the disk directly; what the kernel
/// writes back later it cannot attribute. A sandbox's own writes go to memory in any case.
fn io_settings(version: u8, rate: Option<u64>, disks: &[Disk]) -> Vec<Setting> {
    let Some(rate) = rate else {
        return Vec::new();
    };
    let set = |file: &str, value: String| Setting {
        file: file.to_owned(),
        value,
        optional: false,
    };
    let of = |(major, minor): &Disk| match version {
        1 => vec![
            set("blkio.throttle.read_bps_device", format!("{major}:{minor} {rate}")),
            set("blkio.throttle.write_bps_device", format!("{major}:{minor} {rate}")),
        ],
        _ => vec![set("io.max", format!("{major}:{minor} rbps={rate} wbps={rate}"))],
    };
    disks.iter().flat_map(of).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> SandboxLimits {
        SandboxLimits {
            memory_bytes: 1 << 30,
            pids: 64,
            cpu_millis: 1500,
            disk_bytes: 1,
            io_bytes_per_second: Some(5),
        }
    }

    #[test]
    fn limits_become_the_files_of_each_version() {
        let disks = [(254, 0), (8, 16)];
        let all = |version| -> Vec<_> {
            let of = |c| settings(version, c, &limits(), &disks);
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
                pair("io.max", "254:0 rbps=5 wbps=5"),
                pair("io.max", "8:16 rbps=5 wbps=5"),
            ]
        );
        assert!(all(1).contains(&pair("cpu.cfs_quota_us", "150000")));
        assert!(all(1).contains(&pair("blkio.throttle.read_bps_device", "8:16 5")));
    }

    #[test]
    fn a_small_share_of_a_core_is_not_rounded_up() {
        assert_eq!(cpu(2000), (200_000, 100_000));
        assert_eq!(cpu(10), (1000, 100_000));
        assert_eq!(cpu(3), (3000, 1_000_000));
    }

    #[test]
    fn a_host_with_both_versions_gets_groups_in_both() {
        let parent = |version, path: &str, controllers: &[&'static str]| Parent {
            version,
            path: path.into(),
            controllers: controllers.to_vec(),
        };
        let plan = CgroupPlan {
            parents: vec![
                parent(1, "/m", &["memory"]),
                parent(1, "/b", &["io"]),
                parent(2, "/u", &["pids", FREEZER]),
            ],
            disks: vec![(254, 0)],
        };
        let paths = |limits: &SandboxLimits| -> Vec<_> {
            let groups = plan.groups("x", limits, []);
            groups.into_iter().map(|group| group.path).collect()
        };
        let all = ["/m/stockade-x", "/b/stockade-x", "/u/stockade-x"];
        assert_eq!(paths(&limits()), all.map(PathBuf::from));
        let mut without_io = limits();
        without_io.io_bytes_per_second = None;
        assert_eq!(
            paths(&without_io),
            [all[0], all[2]].map(PathBuf::from),
            "nothing to throttle"
        );
        assert!(plan.enforces("io") && plan.enforces(FREEZER) && !plan.enforces("cpu"));
        let diskless = CgroupPlan {
            disks: Vec::new(),
            ..plan
        };
        assert!(!diskless.enforces("io"));
    }

    /// A directory that looks like a group of version 2 as far as plain files can.
    fn fake_group(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        for (file, text) in [
            ("cgroup.procs", ""),
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", controllers),
        ] {
            fs::write(dir.path().join(file), text).expect("writes");
        }
        dir
    }

    #[test]
    fn a_delegated_group_is_used_and_its_supervisor_group_is_not() {
        let base = fake_group("cpu io memory pids\n");
        let own = base.path().join(SUPERVISOR);
        let mut plan = CgroupPlan::default();
        plan.version_2(&own, Path::new("/nowhere"));
        assert_eq!(plan.parents.len(), 1);
        assert_eq!(plan.parents[0].path, base.path());
    }

    #[test]
    fn the_freezer_of_version_2_is_preferred() {
        let base = fake_group("hugetlb\n");
        let mut plan = CgroupPlan {
            parents: vec![Parent {
                version: 1,
                path: "/f".into(),
                controllers: vec![FREEZER],
            }],
            disks: Vec::new(),
        };
        plan.version_2(base.path(), base.path());
        assert_eq!(plan.parents.len(), 1);
        assert_eq!((plan.parents[0].version, plan.enforces(FREEZER)), (2, true));
    }
}
