//! Writing netlink requests and reading their acknowledgements (RFC 3549, netlink(7)).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

const HEADER: usize = 16;
const F_REQUEST: u16 = 1;
const F_ACK: u16 = 4;
/// Create what does not exist.
pub(super) const F_CREATE: u16 = 0x400;
/// Append to a list.
pub(super) const F_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const ERROR: u16 = 2;

/// One or more requests on their way to the kernel.
pub(super) struct Requests {
    bytes: Vec<u8>,
    message: usize,
    sequence: u32,
    awaited: Vec<u32>,
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            message: 0,
            sequence: 0,
            awaited: Vec::new(),
        }
    }

    /// Starts a message with its fixed part. `ack` asks the kernel to confirm it.
    pub(super) fn message(&mut self, kind: u16, flags: u16, ack: bool, fixed: &[u8]) {
        self.sequence += 1;
        if ack {
            self.awaited.push(self.sequence);
        }
        self.message = self.bytes.len();
        let flags = F_REQUEST | flags | if ack { F_ACK } else { 0 };
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        align(&mut self.bytes);
        self.fix_length();
    }

    fn fix_length(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        self.bytes[self.message..self.message + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds an attribute to the current message.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        align(&mut self.bytes);
        self.fix_length();
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds a NUL-terminated text.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    /// Adds a big-endian number.
    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Sends everything and waits until each message that asked for it is confirmed.
    pub(super) fn submit(self, protocol: SockProtocol) -> io::Result<()> {
        let socket: OwnedFd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &self.bytes, &kernel, MsgFlags::empty())?;
        let mut awaited = self.awaited;
        let mut buffer = vec![0; 64 * 1024];
        while !awaited.is_empty() {
            let n = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (sequence, errno) in acknowledgements(&buffer[..n]) {
                if errno != 0 {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                awaited.retain(|s| *s != sequence);
            }
        }
        Ok(())
    }
}

/// The (sequence, errno) pairs in a datagram from the kernel.
fn acknowledgements(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let u32_at =
        |bytes: &[u8], at: usize| -> Option<u32> { Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk::<4>()?)) };
    let mut out = Vec::new();
    while let Some(len) = u32_at(bytes, 0) {
        let len = len as usize;
        if len < HEADER || len > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        if kind == ERROR
            && let (Some(sequence), Some(error)) = (u32_at(bytes, 8), u32_at(bytes, HEADER))
        {
            out.push((sequence, error.cast_signed().wrapping_neg()));
        }
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_cover_nested_attributes_and_padding() {
        let mut requests = Requests::new();
        requests.message(24, F_CREATE, true, &[1, 2, 3]);
        requests.nest(4, |r| r.text(1, "abcd"));
        assert_eq!(requests.bytes.len(), HEADER + 4 + 4 + 12);
        assert_eq!(requests.bytes[0], 36);
        assert_eq!(requests.bytes[20..24], [16, 0, 4, 0x80]);
        assert_eq!(requests.bytes[24..28], [9, 0, 1, 0]);
    }

    #[test]
    fn acknowledgements_are_read_and_garbage_is_not() {
        let mut wire = Vec::new();
        for (sequence, error) in [(1u32, 0i32), (2, -17)] {
            wire.extend_from_slice(&36u32.to_ne_bytes());
            wire.extend_from_slice(&ERROR.to_ne_bytes());
            wire.extend_from_slice(&[0; 2]);
            wire.extend_from_slice(&sequence.to_ne_bytes());
            wire.extend_from_slice(&[0; 4]);
            wire.extend_from_slice(&error.to_ne_bytes());
            wire.extend_from_slice(&[0; 16]);
        }
        assert_eq!(acknowledgements(&wire), [(1, 0), (2, 17)]);
        assert_eq!(acknowledgements(&wire[..40]), [(1, 0)]);
        assert!(acknowledgements(&[4, 0, 0, 0, 0]).is_empty());
    }
}
