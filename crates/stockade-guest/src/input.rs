//! What a command reads: a pipe, or its terminal.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use stockade_guest_proto::data_cost;

use crate::{sys, terminal};

/// Bytes on their way to a command. The host sends no more than it was given credit for.
pub(crate) struct Input {
    fd: Option<OwnedFd>,
    terminal: bool,
    pending: VecDeque<u8>,
    owed: u64,
    eof: bool,
}

impl Input {
    pub(crate) fn new(fd: Option<OwnedFd>, terminal: bool) -> Self {
        Self {
            fd,
            terminal,
            pending: VecDeque::new(),
            owed: 0,
            eof: false,
        }
    }

    /// The descriptor to wait for, with what to wait for.
    pub(crate) fn interest(&self) -> Option<(RawFd, i16)> {
        let fd = self.fd.as_ref()?.as_raw_fd();
        match (self.pending.is_empty(), self.terminal) {
            (false, _) => Some((fd, libc::POLLOUT)),
            // Without bytes to write only POLLERR matters: the command closed its input.
            (true, false) => Some((fd, 0)),
            // A terminal says so when it is read.
            (true, true) => None,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.owed += data_cost(bytes.len());
        if self.fd.is_some() && !self.eof {
            self.pending.extend(bytes);
            self.write();
        }
    }

    /// No more will come. A terminal stays open; it is told by its end-of-file character.
    pub(crate) fn end(&mut self) {
        if !std::mem::replace(&mut self.eof, true)
            && self.terminal
            && let Some(fd) = &self.fd
        {
            self.pending.extend(terminal::end_of_file(fd.as_fd()));
        }
        self.write();
    }

    pub(crate) fn write(&mut self) {
        let Some(fd) = &self.fd else { return };
        while !self.pending.is_empty() {
            match sys::write(fd.as_raw_fd(), self.pending.as_slices().0) {
                Ok(0) => return,
                Ok(n) => drop(self.pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(),
            }
        }
        if self.eof {
            self.fd = None;
        }
    }

    /// The command reads no more.
    pub(crate) fn close(&mut self) {
        self.fd = None;
        self.pending = VecDeque::new();
    }

    /// Credit to give back to the host: for bytes that are not kept here any more.
    pub(crate) fn repay(&mut self) -> Option<u64> {
        let due = self.owed > 0 && self.pending.is_empty();
        due.then(|| std::mem::take(&mut self.owed))
    }
}
