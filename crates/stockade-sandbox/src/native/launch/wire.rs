//! What the host and the launchers tell each other, over sockets of whole messages.
//!
//! One socket leads to the zygote, which makes a launcher for each [`LaunchSpec`]. Each
//! launcher has a socket of its own, which is also the lifeline: when the host's end closes, for
//! whatever reason, the launcher ends the sandbox and removes what it left.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{cgroup::CgroupDir, failure::Failure};

/// Longest message in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// Most descriptors in one message.
const MAX_FDS: usize = 8;

/// Everything the launcher needs to know. Holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaunchSpec {
    /// Directory of this sandbox on the host, removed at its end.
    pub(crate) dir: PathBuf,
    /// Unpacked layers of an image, the uppermost first; none for a view of the host.
    pub(crate) layers: Vec<PathBuf>,
    /// Generated `/etc`; an image has its own.
    pub(crate) etc: PathBuf,
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) base_git: Option<PathBuf>,
    pub(crate) agents: Option<PathBuf>,
    /// Copy the workspace instead of stacking a layer over it.
    pub(crate) copy_workspace: bool,
    /// cgroups to make, put the sandbox into, and remove.
    pub(crate) cgroups: Vec<CgroupDir>,
    pub(crate) disk_bytes: u64,
    /// Limit on processes by rlimit, where the kernel counts per user namespace.
    pub(crate) pids: Option<u64>,
    /// Archive of a snapshot the writable layer starts with; its name is its digest.
    pub(crate) restore: Option<PathBuf>,
    /// Whose it is is not known yet: it waits for a [`Claim`] with the mounts of its run.
    pub(crate) warm: bool,
}

/// What a sandbox that was made beforehand gets from its run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) base_git: Option<PathBuf>,
    pub(crate) agents: Option<PathBuf>,
    pub(crate) disk_bytes: u64,
}

/// Asks the zygote for an archiver and not a launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArchiveOrder {
    /// Version of the archive's form.
    pub(crate) archive: u8,
}

/// What the launcher, or the sandbox's first process before it becomes the Guest, reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Everything is in place; a pidfd of the launcher comes along, the root of the writable
    /// layer, the sandbox's user namespace, then the boundary's sockets: tcp4, dns4[, tcp6, dns6]. From the zygote: it takes orders.
    Ready,
    /// The claim is carried out, and whoever did it has ended.
    Claimed,
    /// From the archiver: the archive is written.
    Archived,
    /// A step failed.
    Failed(Failure),
    /// The sandbox is gone and so is what it left.
    Ended(String),
}

/// Sends one message, with descriptors.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[RawFd]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_MESSAGE {
        return Err(io::Error::other("a message over the limit"));
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&json)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives one message; `Ok(None)` when the other end is closed.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    match receive_bytes(socket)? {
        Some((bytes, fds)) => Ok(Some((serde_json::from_slice(&bytes)?, fds))),
        None => Ok(None),
    }
}

/// Receives one message as it came; `Ok(None)` when the other end is closed.
pub(crate) fn receive_bytes(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(own));
        }
    }
    let len = message.bytes;
    if len == 0 {
        return Ok(None);
    }
    let complete = !message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    if !complete {
        return Err(io::Error::other("a message over the limit"));
    }
    buffer.truncate(len);
    Ok(Some((buffer, fds)))
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
