//! What a command prints: its pipes, or its terminal.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use stockade_guest_proto::FrameKind;

use crate::sys;

/// Bytes of output moved at once.
pub(crate) const CHUNK: usize = 32 * 1024;
/// How long a terminal must say nothing after its command's end to be empty. The kernel moves
/// what was printed in a worker of its own and does not tell how much is on its way.
const QUIET: Duration = Duration::from_millis(20);
/// More than a terminal's buffers hold beside what it says is waiting (64 KiB and a page on Linux,
/// 128 KiB in gVisor): what comes later was printed after the command's end.
const TERMINAL_BUFFERS: usize = 160 * 1024;

/// One stream of output.
pub(crate) struct Stream {
    pub(crate) kind: FrameKind,
    fd: Option<OwnedFd>,
    terminal: bool,
    /// Set at the command's end: how much it had written by then at most.
    left: Option<usize>,
    quiet: Option<Instant>,
}

/// What a read brought.
pub(crate) enum Piece {
    Bytes(usize),
    Nothing,
}

impl Stream {
    fn new(kind: FrameKind, fd: Option<OwnedFd>, terminal: bool) -> Self {
        Self {
            kind,
            fd,
            terminal,
            left: None,
            quiet: None,
        }
    }

    pub(crate) fn pipe(kind: FrameKind, fd: OwnedFd) -> Self {
        Self::new(kind, Some(fd), false)
    }

    pub(crate) fn terminal(fd: OwnedFd) -> Self {
        Self::new(FrameKind::Stdout, Some(fd), true)
    }

    /// The standard error of a command on a terminal.
    pub(crate) fn none() -> Self {
        Self::new(FrameKind::Stderr, None, false)
    }

    pub(crate) fn fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The terminal itself, while it is open.
    pub(crate) fn open_terminal(&self) -> Option<&OwnedFd> {
        self.fd.as_ref().filter(|_| self.terminal)
    }

    /// The command has ended: from here on only what it had written counts.
    pub(crate) fn note_end(&mut self, now: Instant) {
        if self.left.is_some() {
            return;
        }
        self.left = self.fd.as_ref().map(|fd| sys::bytes_waiting(fd.as_fd()));
        if self.terminal {
            self.left = self.left.map(|waiting| waiting + TERMINAL_BUFFERS);
            self.quiet = Some(now + QUIET);
        }
    }

    /// Whether everything the command had written was read.
    pub(crate) fn is_drained(&self) -> bool {
        self.fd.is_none() || self.left == Some(0)
    }

    /// When to look at it although nothing has arrived.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.quiet.filter(|_| !self.is_drained())
    }

    /// Reads at most as much as counts.
    pub(crate) fn read(&mut self, buffer: &mut [u8], now: Instant) -> Piece {
        let Some(fd) = &self.fd else { return Piece::Nothing };
        let most = buffer.len().min(self.left.unwrap_or(usize::MAX));
        if most == 0 {
            return Piece::Nothing;
        }
        match sys::read(fd.as_raw_fd(), &mut buffer[..most]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if self.quiet.is_none_or(|at| at <= now) {
                    self.left = self.left.map(|_| 0);
                }
            }
            // A terminal whose last user is gone answers EIO.
            Ok(0) | Err(_) => self.fd = None,
            Ok(n) => {
                self.left = self.left.map(|left| left.saturating_sub(n));
                self.quiet = self.quiet.map(|_| now + QUIET);
                return Piece::Bytes(n);
            }
        }
        Piece::Nothing
    }

    /// Reads what nobody wants: background processes must neither block nor die of a closed pipe.
    pub(crate) fn discard(&mut self, buffer: &mut [u8]) {
        let Some(fd) = &self.fd else { return };
        match sys::read(fd.as_raw_fd(), buffer) {
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Ok(0) | Err(_) => self.fd = None,
            Ok(_) => {}
        }
    }
}
