//! Which process a sandbox's directory belongs to, told apart from a later process with
//! the same number.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// One JSON value a line: the [`Record`], then the launcher, then the run that claimed the sandbox.
/// One file and not three: where many are made and removed, each costs the file system a search.
const OWNER: &str = "owner.json";

/// A process of this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Clock ticks after boot, from `/proc/<pid>/stat`.
    start: u64,
    boot: String,
}

impl ProcessId {
    /// The calling process.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(i32::try_from(std::process::id()).map_err(io::Error::other)?)
    }

    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start: start_time(pid)?,
            boot: boot_id()?,
        })
    }

    /// Whether exactly this process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot) && start_time(self.pid).is_ok_and(|start| start == self.start)
    }
}

fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)), which counts from the end of the name. A
/// zombie has ended.
fn start_time(pid: i32) -> io::Result<u64> {
    let bad = || io::Error::other("unexpected /proc/<pid>/stat");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or_else(bad)?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    fields.get(19).and_then(|f| f.parse().ok()).ok_or_else(bad)
}

/// What a sandbox's directory says about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) owner: ProcessId,
    pub(crate) cgroups: Vec<crate::cgroup::CgroupDir>,
}

impl Record {
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(OWNER), serde_json::to_vec(self)?)
    }

    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_str(&line(dir, 0)?)?)
    }
}

fn line(dir: &Path, number: usize) -> io::Result<String> {
    let text = fs::read_to_string(dir.join(OWNER))?;
    let line = text.lines().nth(number).map(str::to_owned);
    line.ok_or_else(|| io::Error::other("it says nothing about that"))
}

/// Adds a line. An error when there is no record yet, or none any more.
fn append(dir: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, value)?;
    fs::File::options().append(true).open(dir.join(OWNER))?.write_all(&line)
}

/// Notes the calling launcher in the sandbox's directory.
pub(crate) fn record_launcher(dir: &Path) -> io::Result<()> {
    append(dir, &ProcessId::own()?)
}

/// Notes the run that a sandbox was claimed by.
pub(crate) fn record_run(dir: &Path, run: &str) -> io::Result<()> {
    append(dir, &run)
}

/// The launcher noted there, if it still runs.
pub(crate) fn live_launcher(dir: &Path) -> Option<ProcessId> {
    let id: ProcessId = serde_json::from_str(&line(dir, 1).ok()?).ok()?;
    id.is_alive().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_not_another_with_its_number() {
        let own = ProcessId::own().expect("own id");
        assert!(own.is_alive());
        let later = ProcessId {
            start: own.start + 1,
            ..own.clone()
        };
        assert!(!later.is_alive());
        let other_boot = ProcessId {
            boot: "other".to_owned(),
            ..own
        };
        assert!(!other_boot.is_alive());
    }

    #[test]
    fn a_directory_tells_its_owner_its_launcher_and_its_run() {
        let dir = tempfile::tempdir().expect("temp dir");
        record_launcher(dir.path()).expect_err("nobody owns it yet");
        let owner = ProcessId::own().expect("own id");
        let cgroups = Vec::new();
        Record { owner, cgroups }.write(dir.path()).expect("writes");
        assert!(live_launcher(dir.path()).is_none());
        record_launcher(dir.path()).expect("notes");
        record_run(dir.path(), "run_1").expect("notes");
        assert!(Record::read(dir.path()).expect("reads").owner.is_alive());
        assert_eq!(live_launcher(dir.path()), ProcessId::own().ok());
        assert_eq!(line(dir.path(), 2).expect("reads"), "\"run_1\"");
    }
}
