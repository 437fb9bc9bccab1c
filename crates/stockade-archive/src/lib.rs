//! Directory trees as tar streams, read and written as if an enemy had made them.
//!
//! An image layer comes from a registry and a snapshot from an agent: both are hostile. This crate
//! reads such a stream into a directory ([`unpack()`]) and writes a directory as such a stream
//! ([`pack()`]). It works on descriptors only: every path is resolved by `openat2(2)` beneath the
//! given directory without following a link, so no entry can reach outside, whatever the entries
//! before it made.
//!
//! What it never makes: device nodes (other than overlay's whiteouts), FIFOs, sockets, set-uid and
//! set-gid bits, owners, extended attributes (other than overlay's mark of an opaque directory).

mod entry;
mod error;
mod names;
mod pack;
mod tree;
mod unpack;
mod walk;

pub use error::ArchiveError;
pub use pack::{PackLimits, Packed, pack};
pub use unpack::{Flavour, Limits, Unpacked, unpack};

/// The attribute by which overlayfs, mounted with `userxattr`, knows a directory that hides what
/// is below it (kernel documentation, filesystems/overlayfs).
pub const OPAQUE: &str = "user.overlay.opaque";
