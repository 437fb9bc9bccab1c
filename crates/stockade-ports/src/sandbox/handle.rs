//! One sandbox, before and after it was proved.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Download, Entry, ExecRequest, Listing, Measurement, ProbePlan, Process, Proof, SandboxError, Upload, Watched,
};

/// A sandbox that is set up and not yet released: nothing can be started in it.
/// Dropping it destroys it.
#[async_trait]
pub trait FreshSandbox: Send + Sync {
    /// Takes the boundary's listening sockets, once; the Guard serves them.
    ///
    /// Until the Guard accepts on them every connection from inside hangs or is
    /// refused: an unserved boundary is closed, not open.
    fn take_boundary(&mut self) -> Option<Boundary>;

    /// What the sandbox really got, for events and receipts.
    fn evidence(&self) -> SandboxEvidence;

    /// Measures from inside, and from the host where only the host can know, every check of
    /// [`super::MEASURED_INSIDE`]. The boundary must be served meanwhile.
    async fn measure(&self, plan: &ProbePlan) -> Result<Measurement, SandboxError>;

    /// Lets the agent in. Only [`super::prove`] has the proof.
    fn release(self: Box<Self>, proof: Proof) -> Arc<dyn SandboxHandle>;

    /// Ends every process and removes every trace. Idempotent.
    async fn destroy(&self) -> Result<(), SandboxError>;
}

/// One live sandbox. Dropping the last handle destroys the sandbox.
#[async_trait]
pub trait SandboxHandle: Send + Sync {
    /// What the sandbox really got, for events and receipts.
    fn evidence(&self) -> SandboxEvidence;

    /// Starts a command inside as the agent's user.
    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError>;

    /// Reads a regular file; more than `limit` bytes is [`SandboxError::TooLarge`].
    async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError>;

    /// Writes a file whole, making parent directories; replaces what was there.
    async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError>;

    /// Reads a regular file piece by piece, `limit` bytes at most.
    async fn download(&self, path: &str, limit: u64) -> Result<Download, SandboxError>;

    /// Writes a file piece by piece, `limit` bytes at most, as [`SandboxHandle::write_file`] does.
    async fn upload(&self, path: &str, mode: u32, limit: u64) -> Result<Upload, SandboxError>;

    /// What a path names, without following a link in its last part.
    async fn stat(&self, path: &str) -> Result<Entry, SandboxError>;

    /// What is below a directory, `depth` levels down (1 is the directory's own entries),
    /// `limit` entries at most. Links are listed and not followed.
    async fn list(&self, path: &str, depth: u32, limit: u32) -> Result<Listing, SandboxError>;

    /// Makes a directory and its parents. Fine if it is there.
    async fn make_dir(&self, path: &str, mode: u32) -> Result<(), SandboxError>;

    /// Removes a file, a link or, when `recursive`, a directory with what is in it.
    async fn remove(&self, path: &str, recursive: bool) -> Result<(), SandboxError>;

    /// Gives something another name; replaces a file that has it.
    async fn rename(&self, from: &str, to: &str) -> Result<(), SandboxError>;

    /// Tells what changes in a directory and, when `recursive`, below it.
    async fn watch(&self, path: &str, recursive: bool) -> Result<Watched, SandboxError>;

    /// Stops every process where it stands (the freezer). Idempotent.
    async fn pause(&self) -> Result<(), SandboxError>;

    /// Lets paused processes go on. Idempotent.
    async fn resume(&self) -> Result<(), SandboxError>;

    /// Keeps the writable layer as an archive in `dir`, named by its content. The sandbox is
    /// paused meanwhile and goes on afterwards.
    async fn snapshot(&self, dir: &Path) -> Result<Snapshot, SandboxError>;

    /// Asks every process to end (SIGTERM), waits, ends the rest and removes every trace.
    async fn stop(&self, grace: Duration) -> Result<(), SandboxError>;

    /// Ends every process at once and removes every trace. Idempotent.
    async fn destroy(&self) -> Result<(), SandboxError>;

    /// The limits the sandbox has run into, as far as they can be known: what was counted since it
    /// was made (a process or thread that was refused, memory that ran out), and what is so now (a
    /// full disk). A limit that is merely used is not one that was run into.
    ///
    /// A backend whose kernel does not count for us names fewer; the default names none.
    async fn limits_hit(&self) -> Vec<LimitHit> {
        Vec::new()
    }

    /// Resolves when the sandbox has ended by itself (its Guest died, its memory ran out), with
    /// the reason.
    async fn ended(&self) -> String;
}

/// Facts of one sandbox.
#[derive(Debug, Clone, Default)]
pub struct SandboxEvidence {
    /// Backend name.
    pub backend: String,
    /// `root` or `rootless`.
    pub mode: String,
    /// Image as resolved.
    pub image: String,
    /// Limits in force, for example `memory=2147483648`, `pids=512`.
    pub limits: Vec<String>,
    /// Milliseconds from the request to the Guest's first word.
    pub start_ms: u64,
    /// Whether it was prepared beforehand.
    pub warm: bool,
}

/// A limit a sandbox ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitHit {
    /// Its name: `memory`, `pids` or `disk`.
    pub limit: &'static str,
    /// Its value: bytes, or processes and threads together.
    pub value: u64,
}

/// The archive of a writable layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// SHA-256 of the archive, as `sha256:…`; also its name in the directory, without the prefix.
    pub digest: String,
    /// Size of the archive in bytes.
    pub bytes: u64,
}

/// The listening sockets of one sandbox's network namespace.
///
/// TCP connections reach them by redirection: the original destination is what
/// `SO_ORIGINAL_DST` says, or the local address where the connection was not rewritten
/// (the sandbox's own loopback with no listener).
#[derive(Debug)]
pub struct Boundary {
    /// TCP listener on IPv4.
    pub tcp4: OwnedFd,
    /// TCP listener on IPv6; absent where the host has no IPv6.
    pub tcp6: Option<OwnedFd>,
    /// UDP socket that receives all port-53 datagrams sent over IPv4.
    pub dns4: OwnedFd,
    /// The same for IPv6.
    pub dns6: Option<OwnedFd>,
}
