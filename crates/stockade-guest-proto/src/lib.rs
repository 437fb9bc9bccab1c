//! The protocol between the host and the Guest, pid 1 of every sandbox.
//!
//! Two byte pipes carry [frames](frame): control frames hold one JSON message
//! ([`ToGuest`] or [`FromGuest`]), data frames hold raw bytes of one request's
//! stream. The protocol is additive: a receiver skips frame kinds, messages and
//! fields it does not know, and [`PROTOCOL_VERSION`] only moves when that is not enough.
//!
//! Neither side can make the other buffer without bound. Output of a command flows
//! only while the host has granted credit for it, and input only while the Guest has
//! (see [`data_cost`]). A frame longer than its limit ends the conversation.

pub mod frame;
pub mod message;
pub mod probe;

pub use frame::{Decoder, Frame, FrameError, FrameKind, HEADER_LEN, MAX_CONTROL, MAX_DATA};
pub use message::{
    ChangeKind, ExecStart, ExitStatus, FailureKind, FileChange, FileEntry, FileKind, FromGuest, TerminalSize, ToGuest,
};
pub use probe::{Observed, ProbeStart, Reached, Resolved};

/// Version both sides name in their hello. Different numbers do not talk.
pub const PROTOCOL_VERSION: u32 = 1;

/// Credit, in bytes, that a command's output and a command's input start with.
pub const INITIAL_CREDIT: u64 = 256 * 1024;

/// Changes a watch may tell before the host has granted more.
pub const WATCH_CREDIT: u64 = 256;

/// Credit one data frame of `len` bytes uses up: its bytes and its bookkeeping,
/// so that a flood of one-byte frames is bounded as well.
#[must_use]
pub const fn data_cost(len: usize) -> u64 {
    len as u64 + 64
}
