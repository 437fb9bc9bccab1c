//! Which limits a sandbox ran into, as the kernel counted it.

use super::{
    group::CgroupDir,
    memory::{OUT_OF_MEMORY, out_of_memory},
};

/// What the reason for the end of a sandbox says that was refused processes or threads.
pub(crate) const OUT_OF_PROCESSES: &str = "it had run into its limit on processes and threads";

/// The reason for a sandbox's end with the limits in it that may have led to it, while the groups are
/// still there to be asked.
pub(crate) fn epitaph(reason: String, groups: &[CgroupDir]) -> String {
    let hit = limits_hit(groups);
    match hit.as_slice() {
        ["memory", ..] => OUT_OF_MEMORY.to_owned(),
        [] => reason,
        _ => format!("{reason}; {OUT_OF_PROCESSES}"),
    }
}

/// Names of the limits that groups have refused something for: a process or thread
/// (`pids.events`, the same in both versions), or memory until something was killed for it.
/// Waiting for the processor or the disk is what those limits are for, and refuses nothing.
/// Groups that are gone name none. Blocking.
pub(crate) fn limits_hit(groups: &[CgroupDir]) -> Vec<&'static str> {
    let mut hit = Vec::new();
    if out_of_memory(groups) {
        hit.push("memory");
    }
    if groups
        .iter()
        .any(|group| refusals(group).is_some_and(|count| count > 0))
    {
        hit.push("pids");
    }
    hit
}

/// How often a process or thread was refused (Documentation/admin-guide/cgroup-v2.rst and
/// cgroup-v1/pids.rst).
fn refusals(group: &CgroupDir) -> Option<u64> {
    let events = group.read("pids.events")?;
    let count = events.lines().find_map(|line| line.strip_prefix("max "))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn hit(files: &[(&str, &str)]) -> Vec<&'static str> {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("writes");
        }
        let path = dir.path().to_owned();
        let settings = Vec::new();
        limits_hit(&[CgroupDir { path, settings }])
    }

    #[test]
    fn only_refusals_are_hits() {
        assert_eq!(hit(&[("pids.events", "max 3\n")]), ["pids"]);
        assert_eq!(hit(&[("pids.events", "max 0\n"), ("pids.current", "64\n")]), [""; 0]);
        // Reclaim at the limit is how a page cache lives; a kill is not.
        let busy = ("memory.events", "low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\n");
        assert_eq!(hit(&[busy, ("cpu.stat", "nr_throttled 99\n")]), [""; 0]);
        let starved = ("memory.events", "max 9\noom 1\noom_kill 1\n");
        assert_eq!(hit(&[starved, ("pids.events", "max 1\n")]), ["memory", "pids"]);
        assert_eq!(hit(&[]), [""; 0]);
    }
}
