//! The network namespace: a loopback, a route that keeps everything, the boundary's sockets.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, listen,
    setsockopt, socket, sockopt,
};

use super::{
    netlink::{F_CREATE, Requests},
    nft::{self, Ports},
};
use crate::failure::{Failure, Step};

/// Above the range the kernel gives to outgoing connections and below nothing a
/// program would choose for its own server.
const PORTS: Ports = Ports {
    tcp: 65_111,
    dns: 65_053,
};
const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const LOOPBACK_INDEX: u32 = 1;

const KERNEL_FIX: &str = "load or build the kernel modules nf_tables, nf_conntrack, nft_ct, \
nft_redir, nft_socket and nft_tproxy (modprobe them as root, and name them in \
/etc/modules-load.d to keep them)";

/// The boundary's sockets, in the order they are handed over.
pub(super) struct Sockets {
    pub(super) tcp4: OwnedFd,
    pub(super) dns4: OwnedFd,
    pub(super) v6: Option<(OwnedFd, OwnedFd)>,
}

/// Prepares the calling process's fresh network namespace.
pub(super) fn prepare() -> Result<Sockets, Failure> {
    loopback_up().step("bring the loopback up")?;
    local_default(libc::AF_INET).step("route all of IPv4 to the loopback")?;
    let v4 = (|| {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORTS.tcp);
        let tcp = listener(AddressFamily::Inet, &SockaddrIn::from(address))?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORTS.dns);
        let dns = datagram(AddressFamily::Inet, &SockaddrIn::from(address))?;
        Ok::<_, io::Error>((tcp, dns))
    })();
    let (tcp4, dns4) = v4.step("bind the boundary's sockets")?;
    // A host without IPv6 has nothing to serve there; the rules then drop all of it.
    let v6 = ipv6_sockets().ok();
    nft::install(PORTS, v6.is_some())
        .map_err(|e| Failure::new("install the boundary's nftables rules", e).with_fix(KERNEL_FIX))?;
    Ok(Sockets { tcp4, dns4, v6 })
}

fn ipv6_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    local_default(libc::AF_INET6)?;
    let at = |port| SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0));
    let tcp = listener(AddressFamily::Inet6, &at(PORTS.tcp))?;
    let dns = datagram(AddressFamily::Inet6, &at(PORTS.dns))?;
    Ok((tcp, dns))
}

fn loopback_up() -> io::Result<()> {
    let up = u32::try_from(libc::IFF_UP).unwrap_or(1);
    let mut info = vec![0; 4];
    for word in [LOOPBACK_INDEX, up, up] {
        info.extend_from_slice(&word.to_ne_bytes());
    }
    let mut requests = Requests::new();
    requests.message(NEW_LINK, 0, true, &info);
    requests.submit(SockProtocol::NetlinkRoute)
}

/// `ip route add local default dev lo`: every address is this machine's own, so every
/// packet stays in the namespace.
fn local_default(family: i32) -> io::Result<()> {
    let route = [
        u8::try_from(family).unwrap_or(0),
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    let mut requests = Requests::new();
    requests.message(NEW_ROUTE, F_CREATE, true, &route);
    requests.attribute(libc::RTA_OIF, &LOOPBACK_INDEX.to_ne_bytes());
    requests.submit(SockProtocol::NetlinkRoute)
}

fn listener(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Transparent: it also takes connections to loopback ports nobody listens on.
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    // One flag of the socket for both families.
    setsockopt(&fd, sockopt::IpTransparent, &true)?;
    bind(fd.as_raw_fd(), address)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd)
}

fn datagram(family: AddressFamily, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), address)?;
    Ok(fd)
}
