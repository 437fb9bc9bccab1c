//! The few system calls the standard library does not offer, as safe functions.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// A process id inside the sandbox.
pub(crate) type Pid = libc::pid_t;

/// Limits on the number of processes: what the agent gets and what the Guest keeps.
#[derive(Clone, Copy)]
pub(crate) struct ProcessLimit(libc::rlim_t);

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Closes this process to inspection by others of its uid (`/proc/1/fd`, `mem`, `environ`).
pub(crate) fn set_non_dumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Reads a file of `/proc`. Such a file has no size to go by: `std::fs::read_to_string` would begin
/// with a few bytes and make the kernel write the whole text again for each longer read.
pub(crate) fn read_whole(path: &str) -> io::Result<String> {
    const USUAL: usize = 16 << 10;
    let mut text = Vec::with_capacity(USUAL);
    File::open(path)?.take(u64::MAX).read_to_end(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

/// Names this process in listings; at most 15 bytes.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated text. It cannot fail with a valid one.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Makes orphans below this process its children instead of pid 1's.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Whether the kernel lets a process adopt orphans; gVisor's before 2023 does not.
pub(crate) fn has_subreapers() -> bool {
    let mut set: libc::c_int = 0;
    // SAFETY: PR_GET_CHILD_SUBREAPER writes one int.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut set, 0, 0, 0) == 0 }
}

/// Takes the headroom the launcher left between the soft and the hard limit for the
/// Guest itself and returns the soft limit, which every command gets.
pub(crate) fn split_process_limit() -> io::Result<ProcessLimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit to fill and then to read.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit))?;
        let agent = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit))?;
        Ok(ProcessLimit(agent))
    }
}

/// Applies the agent's limit to the calling process for good.
pub(crate) fn apply_process_limit(limit: ProcessLimit) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: limit.0,
        rlim_max: limit.0,
    };
    // SAFETY: `limit` is a valid rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }).map(drop)
}

fn sigchld_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data, filled by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Blocks SIGCHLD, ignores SIGPIPE and returns a descriptor that is readable when a child changed.
pub(crate) fn child_signal_fd() -> io::Result<OwnedFd> {
    let set = sigchld_set();
    // SAFETY: `set` outlives the calls; signalfd returns a new descriptor we own.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Default signal handling with nothing blocked, as a fresh program expects it.
pub(crate) fn reset_signals() {
    // SAFETY: plain signal calls; `set` is initialised by sigemptyset.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Whether the calling process got as far as being the child.
pub(crate) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks. The Guest has one thread, so the child may use everything.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: single-threaded process: no lock can be held by another thread.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// A close-on-exec pipe: read end, write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which we own afterwards.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Two ends of a close-on-exec socket that keeps messages apart (socketpair(2)). Unlike a pipe
/// nobody can open it through `/proc/PID/fd`, which gVisor shows for processes that Linux hides.
pub(crate) fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for two descriptors, which we own afterwards.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

pub(crate) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor number; a bad one is an error.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Bytes waiting in a pipe.
pub(crate) fn bytes_waiting(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 {
        0
    } else {
        usize::try_from(count).unwrap_or(0)
    }
}

pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `buffer`.
    let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `bytes`.
    let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Makes `to` a copy of `from` that survives exec.
pub(crate) fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        // SAFETY: fcntl on a descriptor number.
        return check(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: dup2 on descriptor numbers.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

/// Descriptor numbers looked at where close_range(2) is missing.
const MANY: u32 = 65_536;

/// Closes every descriptor from 3 up but the ones in `keep`.
pub(crate) fn close_others(keep: &[RawFd]) {
    // The largest number there can be; gVisor refuses a larger one.
    const END: u32 = i32::MAX.unsigned_abs();
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= 3)
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([END]) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd.saturating_add(1);
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: closes numbers nobody in this (just forked) process uses again.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    for fd in first..=last.min(MANY) {
        // SAFETY: as above; a number that is not open is an error nobody needs.
        unsafe { libc::close(fd.cast_signed()) };
    }
}

pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Replaces the process; returns only on failure.
pub(crate) fn exec(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and point into CStrings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends without running destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns.
    unsafe { libc::_exit(code) }
}

/// A child that ended.
pub(crate) struct Ended {
    pub(crate) pid: Pid,
    pub(crate) status: libc::c_int,
}

/// Reaps one child: `Ok(None)` when none has ended yet (only without `block`).
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub(crate) fn reap(block: bool) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let flags = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` is a valid int.
        match check(unsafe { libc::waitpid(-1, &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some(Ended { pid, status })),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The signal that ended a process, or its exit code.
pub(crate) fn signal_or_code(status: libc::c_int) -> Result<i32, i32> {
    if libc::WIFSIGNALED(status) {
        Err(libc::WTERMSIG(status))
    } else {
        Ok(libc::WEXITSTATUS(status))
    }
}

/// Kills one process; it is no error if it is gone.
pub(crate) fn kill(pid: Pid) {
    // SAFETY: a signal by number; callers never pass 0 or 1.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends a signal to one process; it is no error if it is gone or the number is none.
pub(crate) fn signal(pid: Pid, number: i32) {
    // Numbers below 1 would ask or reach somebody else.
    if pid > 1 && number > 0 {
        // SAFETY: one process, by number.
        unsafe { libc::kill(pid, number) };
    }
}

/// Waits for events on `fds` for at most `timeout_ms` (-1: for ever).
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<()> {
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: pointer and length describe `fds`.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), count, timeout_ms) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// Whether an open file lives in a file system of the kernel's own (`/proc`).
pub(crate) fn is_procfs(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: statfs is plain data and filled by fstatfs.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd.as_raw_fd(), &raw mut stat))?;
        Ok(stat.f_type == libc::PROC_SUPER_MAGIC)
    }
}
