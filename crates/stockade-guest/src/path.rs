//! Names of files, resolved so that nothing inside can redirect them.
//!
//! The agent may swap any part of a path for a link at any moment, and the Guest is pid 1:
//! `/proc/self`, `/dev/stdin` or a link into `/proc` would lend the asker the Guest's own
//! identity. So the kernel never resolves more than one name at a time: every part is opened
//! below the directory opened before it, without following links, and judged by its
//! descriptor. Links are read as text and walked the same way; they may not lead out of the
//! tree the path starts in (the workspace, the home …), and requests that change something
//! follow none at all. Nothing of `/proc` is ever opened. Unlike openat2(2), which can do most
//! of this in one call, this works on every kernel, gVisor's included.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use stockade_guest_proto::FailureKind;

use crate::{
    sys,
    sysfile::{self, NAME_ONLY, Stat},
};

/// Why a request about files failed.
pub(crate) type Failure = (FailureKind, String);

/// Trees with a content of their own. A path in one of them stays in it; any other path
/// belongs to the tree of the whole root.
const TREES: [&str; 7] = [
    "/workspace",
    "/home/agent",
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/opt/agents",
    "/run/stockade/base.git",
];
/// Links followed in one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Names looked up for one path, with those its links add.
const MAX_STEPS: u32 = 4096;
/// Directories made for one file. Their descriptors are kept until it is whole.
const MAX_MADE: usize = 64;

/// The failure a system call's error stands for.
pub(crate) fn failure(path: &str, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => FailureKind::NotFound,
        Some(libc::ENOSPC | libc::EDQUOT) => FailureKind::DiskFull,
        Some(libc::ENAMETOOLONG) => FailureKind::Invalid,
        _ => FailureKind::Other,
    };
    (kind, format!("{path}: {error}"))
}

pub(crate) fn invalid(message: String) -> Failure {
    (FailureKind::Invalid, message)
}

/// What a path names, and where it stands. Nothing of it is open.
pub(crate) struct Found {
    /// The directory it is in; of a tree's root the root itself.
    pub(crate) parent: OwnedFd,
    /// Its name there; of a tree's root `.`.
    pub(crate) name: CString,
    pub(crate) stat: Stat,
}

impl Found {
    pub(crate) fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }
}

/// Where something is to be made, replaced or removed.
pub(crate) struct Place {
    pub(crate) parent: OwnedFd,
    pub(crate) name: CString,
    /// Directories made on the way, outermost first.
    pub(crate) made: Vec<(OwnedFd, CString)>,
}

/// Finds what is there. Links on the way are followed within the tree, and the last one too if
/// `follow` says so.
pub(crate) fn find(path: &str, follow: bool) -> Result<Found, Failure> {
    let (root, base, pending) = open_tree(path)?;
    let walk = Walk {
        path,
        base,
        root,
        pending,
        passed: Vec::new(),
        links: 0,
    };
    walk.find(follow)
}

/// Finds the place of a path without following any link. Missing directories above it are
/// made when `make` says so.
pub(crate) fn place(path: &str, make: bool) -> Result<Place, Failure> {
    let (root, base, mut names) = open_tree(path)?;
    let Some(name) = names.pop_back() else {
        return Err(invalid(format!("{path} itself can neither be replaced nor removed")));
    };
    let mut place = Place {
        parent: root,
        name,
        made: Vec::new(),
    };
    let mut shown = base.trim_end_matches('/').to_owned();
    for part in names {
        shown = format!("{shown}/{}", part.to_string_lossy());
        let entered = place.enter(part, make, &shown);
        if let Err(e) = entered {
            place.forget_directories();
            return Err(e);
        }
    }
    Ok(place)
}

impl Place {
    /// Goes one directory down, making it if it may be missing.
    fn enter(&mut self, name: CString, make: bool, shown: &str) -> Result<(), Failure> {
        let parent = self.parent.as_fd();
        let open = || sysfile::open_at(parent, &name, NAME_ONLY, 0);
        let mut next = open();
        let missing = next.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT));
        let mut made = false;
        if missing && make {
            if self.made.len() >= MAX_MADE {
                return Err(invalid(format!(
                    "{shown}: more than {MAX_MADE} directories are missing"
                )));
            }
            match sysfile::make_dir_at(parent, &name, 0o755) {
                Ok(()) => made = true,
                // Somebody was faster.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                Err(e) => return Err(failure(shown, &e)),
            }
            next = open();
        }
        let next = next.map_err(|e| failure(shown, &e))?;
        let stat = judged(next.as_fd(), shown)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                let above = std::mem::replace(&mut self.parent, next);
                if made {
                    self.made.push((above, name));
                }
                Ok(())
            }
            libc::S_IFLNK => {
                let target = sysfile::read_link_at(parent, &name).unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                let why = format!("{shown} is a link to {target}: give the path without links");
                Err(invalid(why))
            }
            _ => Err(failure(shown, &io::Error::from_raw_os_error(libc::ENOTDIR))),
        }
    }

    /// Removes the directories that were only made for something that did not come; those that
    /// are not empty stay.
    pub(crate) fn forget_directories(&self) {
        for (parent, name) in self.made.iter().rev() {
            let _ = sysfile::unlink_at(parent.as_fd(), name, true);
        }
    }
}

/// Splits a path into the tree it is in, opened, and the names below.
fn open_tree(path: &str) -> Result<(OwnedFd, &'static str, VecDeque<CString>), Failure> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(invalid(format!("{path:?} is not an absolute path")));
    }
    if path.split('/').any(|name| name == "..") {
        return Err(invalid(format!("{path}: give the path without '..'")));
    }
    let below = |base: &'static str| {
        let rest = path.strip_prefix(base)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((base, rest))
    };
    let trees = TREES.into_iter().filter_map(below);
    for (base, rest) in trees.chain([("/", path)]) {
        let name = CString::new(base).map_err(|_| invalid(base.to_owned()))?;
        let root = match sysfile::open_root(&name) {
            Err(_) if base != "/" => continue,
            other => other.map_err(|e| failure(base, &e))?,
        };
        judged(root.as_fd(), base)?;
        return Ok((root, base, parts(rest.as_bytes())));
    }
    Err(invalid(path.to_owned()))
}

/// The names of a path. A NUL cannot occur: it was refused, or the text is a link's.
fn parts(path: &[u8]) -> VecDeque<CString> {
    path.split(|&b| b == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

/// Refuses what belongs to `/proc`; says what the descriptor names otherwise.
pub(crate) fn judged(fd: BorrowedFd<'_>, shown: &str) -> Result<Stat, Failure> {
    let stat = sysfile::stat(fd).map_err(|e| failure(shown, &e))?;
    if is_proc(fd, &stat) {
        let why = format!("{shown} is not a stored file: what is in /proc is the Guest's view");
        return Err(invalid(why));
    }
    Ok(stat)
}

/// Whether a descriptor is in a `/proc`: by its file system's magic number, or, where the kernel
/// gives none (gVisor), by the device.
fn is_proc(fd: BorrowedFd<'_>, stat: &Stat) -> bool {
    static DEVICE: OnceLock<Option<libc::dev_t>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let device = |path| {
            sysfile::stat(sysfile::open_root(path).ok()?.as_fd())
                .ok()
                .map(|s| s.st_dev)
        };
        // An empty directory called /proc is no /proc.
        device(c"/proc").filter(|proc| device(c"/") != Some(*proc))
    });
    *device == Some(stat.st_dev) || sys::is_procfs(fd).unwrap_or(true)
}

/// Opens a directory for reading through a descriptor that only names its parent.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &CStr, shown: &str) -> Result<OwnedFd, Failure> {
    let dir = sysfile::open_at(parent, name, sysfile::READ_DIR, 0).map_err(|e| failure(shown, &e))?;
    judged(dir.as_fd(), shown)?;
    Ok(dir)
}

/// A walk from the root of a tree.
struct Walk<'p> {
    path: &'p str,
    base: &'static str,
    root: OwnedFd,
    pending: VecDeque<CString>,
    /// Names of the directories gone through since the root, for `..` in links.
    passed: Vec<CString>,
    links: u32,
}

impl Walk<'_> {
    fn find(mut self, follow: bool) -> Result<Found, Failure> {
        let mut at = self.root()?;
        for _ in 0..MAX_STEPS {
            let Some(name) = self.pending.pop_front() else {
                let stat = judged(at.as_fd(), self.path)?;
                let name = c".".to_owned();
                return Ok(Found { parent: at, name, stat });
            };
            if name.as_bytes() == b".." {
                self.step_up()?;
                at = self.root()?;
                continue;
            }
            let next = sysfile::open_at(at.as_fd(), &name, NAME_ONLY, 0).map_err(|e| failure(self.path, &e))?;
            let stat = judged(next.as_fd(), self.path)?;
            let last = self.pending.is_empty();
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFLNK if !last || follow => {
                    if self.follow(at.as_fd(), &name)? {
                        at = self.root()?;
                    }
                }
                _ if last => return Ok(Found { parent: at, name, stat }),
                libc::S_IFDIR => {
                    self.passed.push(name);
                    at = next;
                }
                _ => return Err(failure(self.path, &io::Error::from_raw_os_error(libc::ENOTDIR))),
            }
        }
        Err(self.too_many_links())
    }

    fn root(&self) -> Result<OwnedFd, Failure> {
        self.root.try_clone().map_err(|e| failure(self.path, &e))
    }

    /// Goes through the link's text next; `true` when that starts at the root again.
    fn follow(&mut self, at: BorrowedFd<'_>, name: &CStr) -> Result<bool, Failure> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(self.too_many_links());
        }
        let target = match sysfile::read_link_at(at, name) {
            Ok(target) => target,
            // It is no link any more: look again.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => name.to_bytes().to_vec(),
            Err(e) => return Err(failure(self.path, &e)),
        };
        let absolute = target.first() == Some(&b'/');
        let mut ahead = parts(&target);
        if absolute {
            for part in parts(self.base.as_bytes()) {
                if ahead.pop_front().as_ref() != Some(&part) {
                    return Err(self.leads_out());
                }
            }
            self.passed.clear();
        }
        ahead.append(&mut self.pending);
        self.pending = ahead;
        Ok(absolute)
    }

    /// `..` in a link: from the root again, one directory less. The parent of an open directory
    /// may have changed since.
    fn step_up(&mut self) -> Result<(), Failure> {
        if self.passed.pop().is_none() {
            // The root's parent is the root.
            return if self.base == "/" {
                Ok(())
            } else {
                Err(self.leads_out())
            };
        }
        let mut again: VecDeque<_> = std::mem::take(&mut self.passed).into();
        again.append(&mut self.pending);
        self.pending = again;
        Ok(())
    }

    fn leads_out(&self) -> Failure {
        invalid(format!("{} leads out of {} through a link", self.path, self.base))
    }

    fn too_many_links(&self) -> Failure {
        failure(self.path, &io::Error::from_raw_os_error(libc::ELOOP))
    }
}
