//! One cgroup of one sandbox: made, filled, read back, removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Step};

/// Longest a group may take to become empty once its processes are killed.
const EMPTY: Duration = Duration::from_secs(5);

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
        let deadline = Instant::now() + EMPTY;
        loop {
            match fs::remove_dir(&self.path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {}
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => return Ok(()),
            }
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            for pid in self.members() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // In version 1 a frozen process does not even die.
            let _ = fs::write(self.path.join("freezer.state"), "THAWED");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Processes in the group.
    pub(super) fn members(&self) -> Vec<i32> {
        let members = self.read("cgroup.procs").unwrap_or_default();
        members.lines().flat_map(str::parse).collect()
    }

    pub(super) fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    pub(super) fn has(&self, file: &str) -> bool {
        Path::exists(&self.path.join(file))
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }

    /// The limits the kernel enforces on what is in the group now, as its files say.
    fn in_force(&self) -> Vec<(&'static str, u64)> {
        // A limit on nobody limits nobody.
        if self.members().is_empty() {
            return Vec::new();
        }
        let all = [
            ("memory", &["memory."][..]),
            ("cpu", &["cpu."]),
            ("pids", &["pids."]),
            ("io", &["io.", "blkio."]),
        ];
        let value = |name| match name {
            "memory" => self.memory(),
            "cpu" => self.cpu(),
            "pids" => self.number("pids.max"),
            _ => self.io(),
        };
        all.into_iter()
            .filter(|(_, controllers)| self.may_have(controllers))
            .filter_map(|(name, _)| Some((name, value(name)?)))
            .collect()
    }

    /// Whether to look for files of these controllers: every group of a hierarchy of version 1 has
    /// those of one, and looking for others takes longer than reading them. A group whose limits
    /// others set is searched whole.
    fn may_have(&self, controllers: &[&str]) -> bool {
        let ours = |setting: &Setting| controllers.iter().any(|c| setting.file.starts_with(c));
        self.settings.is_empty() || self.settings.iter().any(ours)
    }

    /// Memory and swap together.
    fn memory(&self) -> Option<u64> {
        if self.has("memory.max") {
            let swap = match self.read("memory.swap.max") {
                None => Some(0),
                Some(text) => text.trim().parse().ok(),
            };
            return self.number("memory.max")?.checked_add(swap?);
        }
        // Without the second file the kernel does not account for swap.
        let memory = self.number("memory.limit_in_bytes");
        self.number("memory.memsw.limit_in_bytes").or(memory)
    }

    /// Thousandths of a core, rounded up.
    fn cpu(&self) -> Option<u64> {
        let (quota, period) = match self.read("cpu.max") {
            Some(text) => {
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
            }
            // -1 is no limit, and no u64.
            None => (self.number("cpu.cfs_quota_us")?, self.number("cpu.cfs_period_us")?),
        };
        (period > 0).then(|| quota.saturating_mul(1000).div_ceil(period))
    }

    /// The highest rate of any device, if each is limited both ways.
    fn io(&self) -> Option<u64> {
        if let Some(text) = self.read("io.max") {
            return rates(&text);
        }
        let highest = |file: &str| {
            let text = self.read(file)?;
            text.lines()
                .filter_map(|line| line.split_once(' ')?.1.trim().parse::<u64>().ok())
                .max()
        };
        let read = highest("blkio.throttle.read_bps_device")?;
        Some(read.max(highest("blkio.throttle.write_bps_device")?))
    }
}

/// The highest of the rates in `io.max`: `254:0 rbps=1048576 wbps=max riops=max wiops=max`.
fn rates(text: &str) -> Option<u64> {
    let rate = |line: &str, key: &str| {
        let value = line.split(' ').find_map(|field| field.strip_prefix(key))?;
        value.parse::<u64>().ok()
    };
    let both = |line: &str| Some(rate(line, "rbps=")?.max(rate(line, "wbps=")?));
    let all: Option<Vec<_>> = text.lines().map(both).collect();
    all?.into_iter().max()
}

/// The limits in force on a sandbox by the kernel's own account.
pub(crate) fn limits_in_force(groups: &[CgroupDir]) -> Vec<(&'static str, u64)> {
    groups.iter().flat_map(CgroupDir::in_force).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, CgroupDir) {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("writes");
        }
        let path = dir.path().to_owned();
        let settings = Vec::new();
        (dir, CgroupDir { path, settings })
    }

    #[test]
    fn limits_of_version_2_are_read_back() {
        let (_dir, group) = group(&[
            ("cgroup.procs", "7\n"),
            ("memory.max", "1048576\n"),
            ("memory.swap.max", "0\n"),
            ("cpu.max", "150000 100000\n"),
            ("pids.max", "64\n"),
            (
                "io.max",
                "254:0 rbps=5 wbps=9 riops=max wiops=max\n254:16 rbps=7 wbps=7 riops=max wiops=max\n",
            ),
        ]);
        let expected = [("memory", 1 << 20), ("cpu", 1500), ("pids", 64), ("io", 9)];
        assert_eq!(limits_in_force(&[group]), expected);
    }

    #[test]
    fn limits_of_version_1_are_read_back() {
        let (_dir, group) = group(&[
            ("cgroup.procs", "7\n"),
            ("memory.limit_in_bytes", "1048576\n"),
            ("memory.memsw.limit_in_bytes", "2097152\n"),
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("blkio.throttle.read_bps_device", "254:0 5\n"),
            ("blkio.throttle.write_bps_device", "254:0 6\n"),
        ]);
        let expected = [("memory", 2 << 20), ("cpu", 500), ("io", 6)];
        assert_eq!(limits_in_force(&[group]), expected, "swap counts");
    }

    #[test]
    fn what_limits_nothing_is_not_in_force() {
        let unlimited = [
            ("memory.max", "max\n"),
            ("cpu.max", "max 100000\n"),
            ("pids.max", "max\n"),
            ("io.max", "254:0 rbps=5 wbps=max riops=max wiops=max\n"),
        ];
        let (_dir, there) = group(&[&unlimited[..], &[("cgroup.procs", "7\n")]].concat());
        assert_eq!(limits_in_force(&[there]), []);
        let (_dir, empty) = group(&[("cgroup.procs", ""), ("pids.max", "64\n")]);
        assert_eq!(limits_in_force(&[empty]), [], "nobody is in it");
        let (_dir, swaps) = group(&[("cgroup.procs", "7"), ("memory.max", "9"), ("memory.swap.max", "max")]);
        assert_eq!(limits_in_force(&[swaps]), []);
        let (_dir, old) = group(&[
            ("cgroup.procs", "7"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "9"),
        ]);
        assert_eq!(limits_in_force(&[old]), []);
    }
}
