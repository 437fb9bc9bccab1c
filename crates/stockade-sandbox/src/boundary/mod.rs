//! The network namespace: a loopback, a route that keeps everything, the boundary's sockets.

mod netlink;
mod nft;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, getsockopt,
    listen, setsockopt, socket, sockopt,
};

use stockade_ports::sandbox::Boundary;

use self::{
    netlink::{F_CREATE, Requests},
    nft::Ports,
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
pub(crate) struct Sockets {
    pub(crate) tcp4: OwnedFd,
    pub(crate) dns4: OwnedFd,
    pub(crate) v6: Option<(OwnedFd, OwnedFd)>,
}

/// Where a connection accepted at a boundary wanted to go, if it was redirected.
pub fn original_destination(stream: &tokio::net::TcpStream) -> Option<SocketAddr> {
    match stream.local_addr().ok()?.ip() {
        IpAddr::V4(_) => {
            let at = getsockopt(stream, sockopt::OriginalDst).ok()?;
            let ip = Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(at.sin_port)))
        }
        IpAddr::V6(_) => {
            let at = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
            let ip = Ipv6Addr::from(at.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(at.sin6_port)))
        }
    }
}

impl From<Sockets> for Boundary {
    fn from(sockets: Sockets) -> Self {
        let (tcp6, dns6) = sockets.v6.unzip();
        Self {
            tcp4: sockets.tcp4,
            tcp6,
            dns4: sockets.dns4,
            dns6,
        }
    }
}

/// Prepares somebody else's fresh network namespace. Blocks for as long as that takes.
///
/// A thread of its own enters the namespace and ends there: a thread that came back would
/// have to be sure that it did, and threads of a pool are not ours to lose.
pub(crate) fn prepare_in(namespace: OwnedFd) -> Result<Boundary, Failure> {
    let step = "enter the sandbox's network namespace";
    let enter = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).step(step)?;
        prepare().map(Boundary::from)
    };
    let visitor = thread::Builder::new().name("stockade-boundary".to_owned()).spawn(enter);
    let outcome = visitor.step(step)?.join();
    outcome.unwrap_or_else(|_| Err(Failure::new(step, "the thread for it panicked")))
}

/// Prepares the calling thread's fresh network namespace.
pub(crate) fn prepare() -> Result<Sockets, Failure> {
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
