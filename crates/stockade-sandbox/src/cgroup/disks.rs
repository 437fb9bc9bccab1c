//! The block devices behind directories, as the throttle of the block layer names them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::sys::stat::{major, minor};

/// A block device by its numbers.
pub(super) type Disk = (u64, u64);

/// The whole disks behind directories; none for a file system without one (tmpfs, NFS).
pub(super) fn behind<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Vec<Disk> {
    let mut disks: Vec<_> = paths.into_iter().filter_map(one).collect();
    disks.sort_unstable();
    disks.dedup();
    disks
}

fn one(path: &Path) -> Option<Disk> {
    let device = fs::metadata(path).ok()?.dev();
    let disk = match major(device) {
        // A file system with numbers of its own making (btrfs) tells its device where it is mounted.
        0 => mounted_from(path, &fs::read_to_string("/proc/self/mountinfo").ok()?)?,
        _ => (major(device), minor(device)),
    };
    whole(disk)
}

/// Only a whole disk has a queue to throttle; a partition is a piece of one.
fn whole((major, minor): Disk) -> Option<Disk> {
    let at = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if at.join("partition").exists() {
        at.parent()?
    } else {
        &at
    };
    numbers(&fs::read_to_string(disk.join("dev")).ok()?)
}

fn numbers(text: &str) -> Option<Disk> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The device a path's mount comes from: the source of the longest mount point above it (proc(5)).
fn mounted_from(path: &Path, mountinfo: &str) -> Option<Disk> {
    let device = fs::metadata(mount_source(path, mountinfo)?).ok()?.rdev();
    (device != 0).then(|| (major(device), minor(device)))
}

fn mount_source<'m>(path: &Path, mountinfo: &'m str) -> Option<&'m str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let source = after.split(' ').nth(1)?;
        path.starts_with(point).then_some((point.len(), source))
    });
    // Of two on the same point the later hides the earlier.
    let (_, source) = mounts.max_by_key(|(length, _)| *length)?;
    source.starts_with("/dev/").then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_names_the_device() {
        let info = "1 0 0:30 / / rw - btrfs /dev/vda2 rw\n2 1 0:31 /sub /home rw - btrfs /dev/vdb rw\n\
                    3 1 0:40 / /tmp rw - tmpfs tmpfs rw";
        assert_eq!(mount_source(Path::new("/usr/bin"), info), Some("/dev/vda2"));
        assert_eq!(mount_source(Path::new("/home/me"), info), Some("/dev/vdb"));
        assert_eq!(mount_source(Path::new("/tmp/x"), info), None);
        assert_eq!(numbers("254:16\n"), Some((254, 16)));
    }

    #[test]
    fn file_systems_without_a_device_have_none() {
        assert_eq!(behind([Path::new("/proc"), Path::new("/nowhere")]), []);
        for (major, minor) in behind([Path::new("/")]) {
            assert!(!Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists());
        }
    }
}
