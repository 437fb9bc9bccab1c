//! The kernel, without a library's opinion in between.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

use crate::tell::{Outcome, Refusal, refused};

/// Seconds after which a child that hangs in an attempt is ended.
const PATIENCE: u32 = 6;

/// Any system call. Pointers are passed as numbers.
///
/// Nothing here is trusted and nothing is kept: this program exists to make calls that go
/// wrong. Callers pass buffers that outlive the call, or addresses no memory is mapped at.
pub(crate) fn call(number: i64, args: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: buffers outlive the call and are as large as the call is told; every other
    // address is below the lowest that can be mapped, which the kernel answers with EFAULT.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// A call with up to six arguments; the rest are zero.
pub(crate) fn try_call(number: i64, given: &[usize]) -> Result<usize, i32> {
    let mut args = [0; 6];
    for (slot, value) in args.iter_mut().zip(given) {
        *slot = *value;
    }
    call(number, args)
}

/// A call as an attempt.
pub(crate) fn attempt(number: i64, args: &[usize]) -> Outcome {
    match try_call(number, args) {
        Ok(value) => Ok(format!("the kernel answered {value}")),
        Err(errno) => Err(errno.into()),
    }
}

/// The same where some errors come from behind the door: the call was let through.
pub(crate) fn attempt_or(number: i64, args: &[usize], through: &[i32]) -> Outcome {
    match try_call(number, args) {
        Err(errno) if through.contains(&errno) => Ok(format!("let through: {}", io::Error::from_raw_os_error(errno))),
        other => other
            .map(|value| format!("the kernel answered {value}"))
            .map_err(Refusal::from),
    }
}

/// A C string; a NUL inside ends it.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// Where a C string is.
pub(crate) fn at(text: &CString) -> usize {
    text.as_ptr() as usize
}

/// A negative number as an argument.
pub(crate) fn minus(number: i32) -> usize {
    (-i64::from(number)).cast_unsigned() as usize
}

/// A descriptor the kernel just gave us.
pub(crate) fn owned(fd: usize) -> OwnedFd {
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    // SAFETY: a call that makes a descriptor returned it and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Starts a copy of this process. `Some(pid)` in the parent.
pub(crate) fn fork() -> Result<Option<libc::pid_t>, i32> {
    // SAFETY: the parent has one thread wherever this is called, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Ends a child without running what belongs to the parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// How a child ended, as `wait` tells it.
pub(crate) fn wait(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

pub(crate) fn kill(pid: libc::pid_t, signal: i32) -> Result<(), i32> {
    let args = [pid as isize as usize, signal as usize];
    try_call(libc::SYS_kill, &args).map(drop)
}

/// Ignores a signal.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Ends this process after so many seconds.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: always sound.
    unsafe { libc::alarm(seconds) };
}

/// Carries out an attempt in a child, which may die of it.
pub(crate) fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    let (mut read, mut write) = io::pipe()?;
    let Some(pid) = fork()? else {
        drop(read);
        alarm(PATIENCE);
        let text = match body() {
            Ok(what) => format!("+{what}"),
            Err(Refusal { errno, why }) => format!("-{} {why}", errno.unwrap_or(0)),
        };
        let _ = write.write_all(text.as_bytes());
        exit(0);
    };
    drop(write);
    let mut text = String::new();
    let _ = read.read_to_string(&mut text);
    let status = wait(pid);
    if let Some(what) = text.strip_prefix('+') {
        return Ok(what.to_owned());
    }
    match text.strip_prefix('-').and_then(|rest| rest.split_once(' ')) {
        Some((errno, why)) => Err(Refusal {
            errno: errno.parse().ok().filter(|n| *n != 0),
            why: why.to_owned(),
        }),
        None if libc::WIFSIGNALED(status) => refused(format!("ended by signal {}", libc::WTERMSIG(status))),
        None => refused("its process ended without a word"),
    }
}

/// Reads a whole file whatever its size says.
pub(crate) fn slurp(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(16 << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether some bytes are among others.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // SAFETY: both are as long as the call is told.
    let found = unsafe {
        libc::memmem(
            haystack.as_ptr().cast(),
            haystack.len(),
            needle.as_ptr().cast(),
            needle.len(),
        )
    };
    !needle.is_empty() && !found.is_null()
}

/// Numbers of the processes that show in `/proc`.
pub(crate) fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
