//! Where a redirected connection wanted to go.
#![allow(unsafe_code)]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use tokio::net::TcpStream;

/// `SO_ORIGINAL_DST` of `linux/netfilter_ipv4.h` and `IP6T_SO_ORIGINAL_DST` of
/// `linux/netfilter_ipv6/ip6_tables.h`: both are 80.
const SO_ORIGINAL_DST: libc::c_int = 80;

/// Tells where a connection wanted to go. The kernel does; tests do in its place.
pub trait Origin: Send + Sync {
    /// The destination the client asked for.
    ///
    /// # Errors
    ///
    /// The system's; the connection is then refused.
    fn destination(&self, stream: &TcpStream) -> io::Result<SocketAddr>;
}

/// Asks the kernel: the destination before redirection, or the local address of a
/// connection that was not rewritten.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelOrigin;

impl Origin for KernelOrigin {
    fn destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let local = stream.local_addr()?;
        let fd = stream.as_raw_fd();
        let original = if local.is_ipv4() {
            original_v4(fd)
        } else {
            original_v6(fd)
        };
        // Without a connection tracking entry nothing was rewritten: the local address is what
        // was asked for. Were it a redirected connection after all, its local address is a
        // loopback one, which is refused.
        original.or(Ok(local))
    }
}

fn original_v4(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all-zero bytes are a valid `sockaddr_in`.
    let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    option(fd, libc::SOL_IP, &mut raw)?;
    if i32::from(raw.sin_family) != libc::AF_INET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let address = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
    Ok(SocketAddr::from((address, u16::from_be(raw.sin_port))))
}

fn original_v6(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all-zero bytes are a valid `sockaddr_in6`.
    let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    option(fd, libc::SOL_IPV6, &mut raw)?;
    if i32::from(raw.sin6_family) != libc::AF_INET6 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let address = Ipv6Addr::from(raw.sin6_addr.s6_addr);
    Ok(SocketAddr::from((address, u16::from_be(raw.sin6_port))))
}

fn option<T>(fd: RawFd, level: libc::c_int, value: &mut T) -> io::Result<()> {
    let size = size_of::<T>();
    let mut length = libc::socklen_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `fd` is an open socket borrowed from the caller, `value` is a plain C struct of
    // `length` bytes that lives through the call, and the kernel writes at most that many.
    let result = unsafe {
        libc::getsockopt(
            fd,
            level,
            SO_ORIGINAL_DST,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    match result {
        0 if usize::try_from(length).is_ok_and(|written| written >= size) => Ok(()),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
