//! The groups of a process that somebody else put into them, and disks by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CgroupDir, disks, mounts::Mounts};

/// The groups a process of this host is in, in every hierarchy. None that this process does not
/// see, and none for a process that is gone.
pub(crate) fn of_process(pid: i32) -> Vec<CgroupDir> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let own = read(&format!("/proc/{pid}/cgroup"));
    let mounts = Mounts::parse(&read("/proc/self/mountinfo"), &own);
    let old = mounts.version_1.into_iter().map(|(_, path)| path);
    let all = old.chain(mounts.unified.filter(|_| !own.is_empty()));
    all.map(|path| CgroupDir {
        path,
        settings: Vec::new(),
    })
    .collect()
}

/// The whole disks behind directories, as paths in `/dev`.
pub(crate) fn disk_paths<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Vec<PathBuf> {
    let named = disks::behind(paths).into_iter().filter_map(|(major, minor)| {
        let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
        let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(Path::new("/dev").join(name)).filter(|path| path.exists())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_groups_it_is_found_in() {
        let own = i32::try_from(std::process::id()).expect("pid");
        let number = own.to_string();
        let groups = of_process(own);
        let listed = |group: &CgroupDir| {
            let procs = fs::read_to_string(group.path.join("cgroup.procs")).unwrap_or_default();
            procs.lines().any(|line| line == number)
        };
        assert!(groups.iter().any(listed), "{groups:?}");
        assert!(of_process(-1).is_empty());
    }

    #[test]
    fn disks_are_named_as_they_are_in_dev() {
        for path in disk_paths([Path::new("/")]) {
            assert!(path.starts_with("/dev") && path.exists(), "{}", path.display());
        }
        assert!(disk_paths([Path::new("/proc")]).is_empty());
    }
}
