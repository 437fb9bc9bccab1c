//! Landlock (kernel: userspace-api/landlock.rst): a second lock on what the mounts and the
//! network namespace forbid already, by other code of the kernel.
//!
//! Files may be changed only on file systems that are mounted to be written; connections to
//! abstract sockets and signals stay among what this Guest started; and who is in such a domain
//! can neither mount nor trace what is outside it. The Guest enters before the probe, when all
//! mounts are there, so that all commands share one domain and can signal each other.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

use crate::sys;

/// `LANDLOCK_CREATE_RULESET_VERSION`: asks for the version instead of making a rule set.
const ASK_VERSION: libc::c_ulong = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;

const WRITE_FILE: u64 = 1 << 1;
/// Removing and making directories, files, sockets, pipes and links.
const CHANGE: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12;
/// Making devices.
const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
/// Renaming and linking from one directory to another; version 2.
const REFER: u64 = 1 << 13;
/// Version 3.
const TRUNCATE: u64 = 1 << 14;
/// Abstract sockets and signals; version 6.
const SCOPES: u64 = 1 << 0 | 1 << 1;

#[repr(C)]
struct RuleSet {
    files: u64,
    network: u64,
    scopes: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Enters the domain, once; later calls say what the first one did. The version of Landlock
/// that is in force, 0 where the kernel has none. What is forked afterwards is in it too.
///
/// # Errors
/// When the kernel has it and it could not be put in force: nothing may be started then.
pub(crate) fn enter() -> io::Result<u32> {
    static ENTERED: OnceLock<Result<u32, i32>> = OnceLock::new();
    let once = || try_enter().map_err(|e| e.raw_os_error().unwrap_or(libc::EIO));
    ENTERED.get_or_init(once).map_err(io::Error::from_raw_os_error)
}

fn try_enter() -> io::Result<u32> {
    let Some(version) = version() else { return Ok(0) };
    let handled = handled(version);
    let rules = new_rule_set(version, handled)?;
    for (path, is_dir) in writable(&sys::read_whole("/proc/self/mountinfo")?) {
        let allowed = if is_dir {
            handled & !MAKE_DEVICES
        } else {
            handled & (WRITE_FILE | TRUNCATE)
        };
        allow(&rules, &path, allowed)?;
    }
    // SAFETY: a rule set and no flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    Ok(version)
}

fn check(result: libc::c_long) -> io::Result<i32> {
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}

/// The kernel's version; `None` when it has none, or somebody has forbidden it.
fn version() -> Option<u32> {
    let nothing = std::ptr::null::<RuleSet>();
    // SAFETY: with this flag the kernel reads nothing.
    let version = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_VERSION) });
    version
        .ok()
        .and_then(|version| u32::try_from(version).ok())
        .filter(|version| *version > 0)
}

fn handled(version: u32) -> u64 {
    let mut handled = WRITE_FILE | CHANGE | MAKE_DEVICES;
    if version >= 2 {
        handled |= REFER;
    }
    if version >= 3 {
        handled |= TRUNCATE;
    }
    handled
}

fn new_rule_set(version: u32, files: u64) -> io::Result<OwnedFd> {
    let set = RuleSet {
        files,
        network: 0,
        scopes: if version >= 6 { SCOPES } else { 0 },
    };
    // An older kernel knows fewer fields and refuses what it does not know.
    let size = match version {
        0..=3 => 8,
        4..=5 => 16,
        _ => size_of::<RuleSet>(),
    };
    // SAFETY: `set` is that many bytes at least; the result is a descriptor of ours.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const set,
            size,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn allow(rules: &OwnedFd, path: &str, allowed: u64) -> io::Result<()> {
    let path = CString::new(path).map_err(io::Error::other)?;
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a valid path; the rule is read by the kernel and holds an open descriptor.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags);
        if fd < 0 {
            // Hidden below a mount that came later: nobody can reach it either.
            return Ok(());
        }
        let parent = OwnedFd::from_raw_fd(fd);
        let rule = PathBeneath {
            allowed,
            parent: parent.as_raw_fd(),
        };
        let (set, kind) = (rules.as_raw_fd(), RULE_PATH_BENEATH);
        check(libc::syscall(
            libc::SYS_landlock_add_rule,
            set,
            kind,
            &raw const rule,
            0,
        ))
        .map(drop)
    }
}

/// Mount points one may write below, and whether each is a directory, from
/// `/proc/self/mountinfo` (proc(5)). What is below a writable `/proc` needs no rule of its own.
fn writable(mountinfo: &str) -> Vec<(String, bool)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (point, options) = (before.next()?, before.next()?);
        let is_rw = |options: &str| options.split(',').any(|option| option == "rw");
        let inner = after.split(' ').nth(2)?;
        (is_rw(options) && is_rw(inner) && !point.starts_with("/proc/")).then(|| unescape(point))
    });
    let mut points: Vec<_> = mounts.collect();
    points.sort_unstable();
    points.dedup();
    let is_dir = |path: &String| fs::metadata(path).is_ok_and(|meta| meta.is_dir());
    points.into_iter().map(|path| (path.clone(), is_dir(&path))).collect()
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let digits = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_that_may_be_written_are_found() {
        let info = "1 0 0:1 / / ro,nosuid - tmpfs tmpfs rw\n\
            2 1 0:2 / /tmp rw - tmpfs tmpfs rw\n\
            3 1 0:3 / /usr ro - ext4 /dev/vda rw\n\
            4 1 0:4 / /data rw - ext4 /dev/vdb ro\n\
            5 1 0:5 / /proc rw - proc proc rw\n\
            6 5 0:6 /null /proc/kcore rw - devtmpfs udev rw\n\
            7 1 0:6 /null /dev/null rw - devtmpfs udev rw\n\
            8 1 0:7 / /a\\040b rw - tmpfs tmpfs rw";
        let points: Vec<_> = writable(info).into_iter().map(|(point, _)| point).collect();
        assert_eq!(points, ["/a b", "/dev/null", "/proc", "/tmp"]);
    }

    #[test]
    fn older_kernels_are_asked_for_what_they_know() {
        assert_eq!(handled(1) & (REFER | TRUNCATE), 0);
        assert_eq!(handled(2) & (REFER | TRUNCATE), REFER);
        assert_ne!(handled(7) & TRUNCATE, 0);
    }

    /// Another thread than the test's own, which must stay free.
    #[test]
    fn what_is_entered_holds() {
        let dir = std::env::temp_dir().join(format!("stockade-landlock-{}", std::process::id()));
        fs::create_dir(&dir).expect("temp dir");
        let file = dir.join("file");
        let thread = std::thread::spawn(move || {
            let version = version()?;
            let rules = new_rule_set(version, handled(version)).expect("a rule set");
            // SAFETY: integers and a rule set.
            unsafe {
                check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into()).expect("no_new_privs");
                check(libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0)).expect("enters");
            }
            Some(
                fs::write(&file, "x")
                    .expect_err("nothing may be written")
                    .raw_os_error(),
            )
        });
        let refused = thread.join().expect("lives");
        fs::write(dir.join("file"), "x").expect("the rest of the process is free");
        fs::remove_dir_all(&dir).expect("removes");
        assert!(matches!(refused, None | Some(Some(libc::EACCES))), "{refused:?}");
    }
}
