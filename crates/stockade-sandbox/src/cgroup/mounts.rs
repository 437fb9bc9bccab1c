//! Where this process's own groups are.

use std::path::{Path, PathBuf};

/// The hierarchies this process is in, each at the group it is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// Controllers and own group of each hierarchy of version 1.
    pub(super) version_1: Vec<(Vec<String>, PathBuf)>,
    /// Own group of version 2.
    pub(super) unified: Option<PathBuf>,
    /// Where version 2 is mounted.
    pub(super) unified_root: PathBuf,
}

impl Mounts {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
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
            if let Some(mount) = Mount::parse(line) {
                out.take(&mount, &own);
            }
        }
        out
    }

    fn take(&mut self, mount: &Mount<'_>, own: &[(Vec<&str>, &str)]) {
        match mount.kind {
            "cgroup2" => {
                let path = own.iter().find(|(c, _)| *c == [""]).map_or("/", |o| o.1);
                self.unified = mount.below(path);
                self.unified_root = PathBuf::from(mount.point);
            }
            "cgroup" => {
                let options: Vec<_> = mount.options.split(',').collect();
                let mut groups = own.iter();
                let group = groups.find(|(c, _)| !c.is_empty() && c.iter().all(|c| options.contains(c)));
                if let Some((controllers, path)) = group
                    && let Some(path) = mount.below(path)
                {
                    let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
                    self.version_1.push((controllers, path));
                }
            }
            _ => {}
        }
    }
}

/// One line of mountinfo.
struct Mount<'l> {
    root: &'l str,
    point: &'l str,
    kind: &'l str,
    options: &'l str,
}

impl<'l> Mount<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }

    /// Where a group of the hierarchy is in the file system, if this mount shows it.
    fn below(&self, group: &str) -> Option<PathBuf> {
        let relative = Path::new(group).strip_prefix(self.root).ok()?;
        Some(Path::new(self.point).join(relative))
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
}
