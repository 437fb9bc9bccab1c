//! The system calls of the probe, as safe functions.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::sys::Pid;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Waits for one child; its wait status.
pub(super) fn wait_for(pid: Pid) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid int.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Has the kernel end this process after a time (SIGALRM), whatever it does then.
pub(super) fn end_after(seconds: u32) {
    // SAFETY: one integer.
    unsafe { libc::alarm(seconds) };
}

/// Whether no program can gain privileges by being executed.
pub(super) fn has_no_new_privs() -> bool {
    // SAFETY: an option without arguments.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Soft and hard limits by name.
pub(super) fn resource_limits() -> BTreeMap<String, (u64, u64)> {
    let read = |resource| {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is a valid rlimit to fill.
        check(unsafe { libc::getrlimit(resource, &raw mut limit) }).ok()?;
        Some((limit.rlim_cur, limit.rlim_max))
    };
    [
        ("nproc", libc::RLIMIT_NPROC),
        ("nofile", libc::RLIMIT_NOFILE),
        ("core", libc::RLIMIT_CORE),
    ]
    .into_iter()
    .filter_map(|(name, resource)| Some((name.to_owned(), read(resource)?)))
    .collect()
}

/// The file system a path is on, if one may write there.
fn writable(path: &str) -> Option<libc::statvfs> {
    let path = CString::new(path).ok()?;
    // SAFETY: a valid path; `stat` is plain data, filled by the call before it is read.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &raw mut stat)).ok()?;
        stat
    };
    (stat.f_flag & libc::ST_RDONLY == 0).then_some(stat)
}

/// Size in bytes of the file system a path is on, if one may write there.
pub(super) fn file_system_size(path: &str) -> Option<u64> {
    let stat = writable(path)?;
    Some(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Whether a file system one may write to has no block or no file left to give.
pub(super) fn file_system_is_full(path: &str) -> bool {
    // One that counts neither says that it has none of them.
    writable(path).is_some_and(|s| (s.f_blocks > 0 && s.f_bavail == 0) || (s.f_files > 0 && s.f_favail == 0))
}

/// A TCP connection on its way.
pub(super) fn connect_in_background(to: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a descriptor of our own from here on.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?) };
    let fd = socket.as_raw_fd();
    let family = libc::sa_family_t::try_from(family).unwrap_or(0);
    // SAFETY: plain data of the family's own layout, passed with its size.
    let result = unsafe {
        match to {
            SocketAddr::V4(to) => {
                let mut address: libc::sockaddr_in = std::mem::zeroed();
                address.sin_family = family;
                address.sin_port = to.port().to_be();
                address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
                libc::connect(fd, (&raw const address).cast(), length_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(to) => {
                let mut address: libc::sockaddr_in6 = std::mem::zeroed();
                address.sin6_family = family;
                address.sin6_port = to.port().to_be();
                address.sin6_addr.s6_addr = to.ip().octets();
                libc::connect(fd, (&raw const address).cast(), length_of::<libc::sockaddr_in6>())
            }
        }
    };
    match check(result) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(socket),
    }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// What became of a connection that was on its way; 0 when it stands.
pub(super) fn socket_error(socket: &OwnedFd) -> i32 {
    let mut error = 0;
    let mut length = length_of::<libc::c_int>();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ERROR);
    // SAFETY: an int and its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut error).cast(),
            &raw mut length,
        )
    };
    if result < 0 { libc::EBADF } else { error }
}

/// Connects to a name in the abstract namespace of unix(7).
pub(super) fn connect_abstract(name: &str) -> io::Result<()> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a descriptor of our own; the address is plain data and its length is that of the
    // family, the leading NUL and as much of the name as has room.
    unsafe {
        let fd = OwnedFd::from_raw_fd(check(libc::socket(libc::AF_UNIX, kind, 0))?);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(1);
        let room = address.sun_path.len() - 1;
        for (to, from) in address.sun_path.iter_mut().skip(1).zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let length = size_of::<libc::sa_family_t>() + 1 + name.len().min(room);
        let length = libc::socklen_t::try_from(length).unwrap_or(2);
        check(libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length)).map(drop)
    }
}

/// Makes a system call; its error number, 0 for success.
///
/// Only for arguments that hold no address of mapped memory: the kernel can then neither read
/// nor write anything of ours. A descriptor it makes lives as long as the process.
pub(super) fn call(number: libc::c_long, [a, b, c, d, e, f]: [libc::c_long; 6]) -> i32 {
    // SAFETY: see above; the only callers pass constants.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}
