//! The two pipes to the host, neither of which ever blocks the Guest.

use std::io;

use stockade_guest_proto::{Decoder, ExitStatus, FailureKind, Frame, FrameKind, FromGuest, frame};

use crate::sys;

/// Output bytes waiting for the host above which nothing new is produced.
const OUTPUT_HIGH: usize = 256 * 1024;
/// Bytes taken from the host at once.
const INPUT_CHUNK: usize = 64 * 1024;

/// The conversation with the host.
pub(crate) struct Conn {
    decoder: Decoder,
    output: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
}

impl Conn {
    pub(crate) fn new() -> io::Result<Self> {
        sys::set_nonblocking(0)?;
        sys::set_nonblocking(1)?;
        Ok(Self {
            decoder: Decoder::default(),
            output: Vec::new(),
            sent: 0,
            buffer: vec![0; INPUT_CHUNK],
        })
    }

    /// Whether there is room to produce more output.
    pub(crate) fn has_room(&self) -> bool {
        self.output.len() - self.sent < OUTPUT_HIGH
    }

    /// Whether bytes wait for the host.
    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    pub(crate) fn send(&mut self, message: &FromGuest) {
        // Serializing these plain types cannot fail; an empty frame would be ignored.
        let json = serde_json::to_vec(message).unwrap_or_default();
        frame::encode(&mut self.output, FrameKind::Control, 0, &json);
    }

    pub(crate) fn send_data(&mut self, kind: FrameKind, stream: u32, bytes: &[u8]) {
        frame::encode(&mut self.output, kind, stream, bytes);
    }

    pub(crate) fn fail(&mut self, id: u32, kind: FailureKind, message: String) {
        self.send(&FromGuest::Failed { id, kind, message });
    }

    pub(crate) fn exited(&mut self, id: u32, status: ExitStatus) {
        self.send(&FromGuest::Exited { id, status });
    }

    /// Writes what the pipe takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.has_output() {
            match sys::write(1, &self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !self.has_output() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > OUTPUT_HIGH {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Takes in what has arrived; `false` when the host closed the conversation.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        match sys::read(0, &mut self.buffer) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.decoder.feed(&self.buffer[..n]);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The next whole frame that has arrived.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        self.decoder
            .next_frame()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}
