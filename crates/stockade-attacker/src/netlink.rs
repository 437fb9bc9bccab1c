//! Changing the network one is in: interfaces, routes, the packet filter.

use crate::{
    args::Args,
    sys::{owned, try_call},
    tell::{Outcome, Refusal, attempt, refused},
};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const LO: u32 = 1;
const SIOCSIFFLAGS: usize = 0x8914;
const SIOCSIFADDR: usize = 0x8916;

/// One request over netlink and its acknowledgement (RFC 3549).
fn request(protocol: i32, kind: u16, flags: u16, body: &[u8]) -> Outcome {
    let family = libc::AF_NETLINK as usize;
    let fd = try_call(libc::SYS_socket, &[family, libc::SOCK_RAW as usize, protocol as usize])?;
    let socket = owned(fd);
    let mut message = Vec::new();
    let length = u32::try_from(16 + body.len()).unwrap_or(0);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    try_call(
        libc::SYS_sendto,
        &[fd, message.as_ptr() as usize, message.len(), 0, 0, 0],
    )?;
    let mut answer = [0_u8; 1024];
    let place = answer.as_mut_ptr() as usize;
    let length = try_call(libc::SYS_recvfrom, &[fd, place, answer.len(), 0, 0, 0])?;
    drop(socket);
    // NLMSG_ERROR, and the number after the header.
    if length < 20 || answer[4] != 2 {
        return refused("no acknowledgement");
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok("the kernel did it".to_owned()),
        error => Err((-error).into()),
    }
}

/// An attribute with its padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).unwrap_or(0).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in [index, flags, change] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

/// The same where an error comes from behind the door: it was let through.
fn request_or(kind: u16, flags: u16, body: &[u8], through: i32) -> Outcome {
    match request(libc::NETLINK_ROUTE, kind, flags, body) {
        Err(Refusal { errno: Some(errno), .. }) if errno == through => {
            Ok("the kernel looked for what is not there".to_owned())
        }
        other => other,
    }
}

/// Changes interfaces, addresses, routes, rules and the packet filter. In the sandbox's network
/// each of these would undo the boundary; so that nothing is undone anywhere, what is changed is
/// changed to what it is, and what is deleted does not exist.
pub(crate) fn tamper(_: &Args) {
    let name = attribute(libc::IFLA_IFNAME, b"stockaderedteam\0");
    let kind = attribute(libc::IFLA_LINKINFO, &attribute(1, b"dummy\0"));
    let link = [link_header(0, 0, 0), name.clone(), kind].concat();
    attempt(
        "link.add",
        request(libc::NETLINK_ROUTE, libc::RTM_NEWLINK, NLM_F_CREATE, &link),
    );
    let gone = [link_header(0, 0, 0), name].concat();
    let _ = request(libc::NETLINK_ROUTE, libc::RTM_DELLINK, 0, &gone);
    // No flag of the loopback is named, so none changes.
    let same = link_header(LO, 0, 0);
    attempt("link.change", request(libc::NETLINK_ROUTE, libc::RTM_SETLINK, 0, &same));
    let mut address = vec![2, 32, 0, 0];
    address.extend(LO.to_ne_bytes());
    address.extend(attribute(libc::IFA_LOCAL, &[198, 51, 100, 77]));
    let through = libc::EADDRNOTAVAIL;
    attempt("address.delete", request_or(libc::RTM_DELADDR, 0, &address, through));
    // A unicast route for 198.51.100.0/24 over the loopback in the main table.
    let mut way = vec![2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    way.extend(attribute(libc::RTA_DST, &[198, 51, 100, 0]));
    way.extend(attribute(libc::RTA_OIF, &LO.to_ne_bytes()));
    attempt("route.delete", request_or(libc::RTM_DELROUTE, 0, &way, libc::ESRCH));
    let rule = [
        vec![2, 0, 0, 0, 99, 0, 0, 1, 0, 0, 0, 0],
        attribute(6, &77_777_u32.to_ne_bytes()),
    ]
    .concat();
    attempt("rule.delete", request_or(libc::RTM_DELRULE, 0, &rule, libc::ENOENT));
    attempt("filter.delete", delete_table());
}

/// Deletes an nftables table nobody has, in a batch as the kernel wants it.
fn delete_table() -> Outcome {
    const NFT_DELTABLE: u16 = 10 << 8 | 2;
    let family = libc::AF_NETLINK as usize;
    let netfilter = libc::NETLINK_NETFILTER as usize;
    let fd = try_call(libc::SYS_socket, &[family, libc::SOCK_RAW as usize, netfilter])?;
    let socket = owned(fd);
    let mut batch = Vec::new();
    for (kind, flags, resource) in [(16_u16, 0, 10_u16), (NFT_DELTABLE, NLM_F_ACK, 0), (17, 0, 10)] {
        let name = if kind == NFT_DELTABLE {
            attribute(1, b"stockade-redteam-none\0")
        } else {
            Vec::new()
        };
        batch.extend(u32::try_from(20 + name.len()).unwrap_or(0).to_ne_bytes());
        batch.extend(kind.to_ne_bytes());
        batch.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        batch.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        batch.extend([2, 0]);
        batch.extend(resource.to_be_bytes());
        batch.extend(name);
    }
    try_call(libc::SYS_sendto, &[fd, batch.as_ptr() as usize, batch.len(), 0, 0, 0])?;
    let mut answer = [0_u8; 1024];
    let place = answer.as_mut_ptr() as usize;
    let length = try_call(libc::SYS_recvfrom, &[fd, place, answer.len(), 0x40, 0, 0])?;
    drop(socket);
    if length < 20 || answer[4] != 2 {
        return refused("no acknowledgement");
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok("the kernel did it".to_owned()),
        error if -error == libc::ENOENT => Ok("the kernel looked for the table".to_owned()),
        error => Err((-error).into()),
    }
}

/// Brings the loopback of a fresh network namespace up and gives it more addresses.
pub(crate) fn loopback_up<'a>(addresses: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let datagram = [libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0];
    let fd = try_call(libc::SYS_socket, &datagram)?;
    let socket = owned(fd);
    // struct ifreq: the name, then what is set.
    let mut flags = [0_u8; 40];
    flags[..2].copy_from_slice(b"lo");
    flags[16] = 1;
    try_call(libc::SYS_ioctl, &[fd, SIOCSIFFLAGS, flags.as_ptr() as usize])?;
    for (number, address) in addresses.enumerate() {
        let Ok(std::net::IpAddr::V4(address)) = address.parse() else {
            add_v6(address)?;
            continue;
        };
        let mut alias = [0_u8; 40];
        let name = format!("lo:{number}");
        alias[..name.len()].copy_from_slice(name.as_bytes());
        alias[16] = 2;
        alias[20..24].copy_from_slice(&address.octets());
        try_call(libc::SYS_ioctl, &[fd, SIOCSIFADDR, alias.as_ptr() as usize])?;
    }
    drop(socket);
    Ok(())
}

fn add_v6(address: &str) -> Result<(), Refusal> {
    let address: std::net::Ipv6Addr = address.parse().map_err(|_| Refusal::from(libc::EINVAL))?;
    // IFA_F_NODAD: nobody to ask whether the address is taken.
    let mut body = vec![10, 128, 2, 0];
    body.extend(LO.to_ne_bytes());
    body.extend(attribute(libc::IFA_LOCAL, &address.octets()));
    body.extend(attribute(libc::IFA_ADDRESS, &address.octets()));
    request(libc::NETLINK_ROUTE, libc::RTM_NEWADDR, NLM_F_CREATE, &body).map(drop)
}
