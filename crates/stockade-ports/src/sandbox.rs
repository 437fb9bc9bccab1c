//! The sandbox port: a place where an agent may do anything and from which nothing leaves.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::{RunId, SandboxLimits};
use tokio::sync::mpsc;

/// Where the repository appears inside every sandbox.
pub const WORKSPACE: &str = "/workspace";
/// Home of the agent's user inside every sandbox.
pub const AGENT_HOME: &str = "/home/agent";
/// Where the host's directory of installed agents appears inside, read-only.
pub const AGENTS_DIR: &str = "/opt/agents";
/// Where the pristine git directory of the repository appears inside, read-only.
///
/// The agent owns `/workspace/.git` and may do to it what it likes; the export
/// compares against this copy, which it cannot change.
pub const BASE_GIT_DIR: &str = "/run/stockade/base.git";

/// Makes sandboxes. One value per backend and process.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Backend name as configuration and receipts spell it, for example `native`.
    fn name(&self) -> &'static str;

    /// Says whether this host can run the backend at all, and what is missing.
    ///
    /// Idempotent; starts nothing that outlives the call.
    async fn check(&self) -> Result<SandboxFacts, SandboxError>;

    /// Creates a sandbox with its boundary in place and its Guest answering.
    ///
    /// On error nothing is left behind. On cancel (the future is dropped) the
    /// half-made sandbox is destroyed in the background.
    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn SandboxHandle>, SandboxError>;

    /// Removes what sandboxes of a dead process left: processes, mounts, cgroups, files.
    ///
    /// Called once at boot, before the first `create`. Idempotent.
    async fn reap(&self) -> Result<Reaped, SandboxError>;
}

/// What a backend found out about this host.
#[derive(Debug, Clone, Default)]
pub struct SandboxFacts {
    /// `root` or `rootless`.
    pub mode: String,
    /// Limits that can be enforced here: `memory`, `pids`, `cpu`, `disk`.
    pub enforced_limits: Vec<String>,
    /// Things an operator should know, one sentence each.
    pub notes: Vec<String>,
}

/// What the boot reaper removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Sandboxes whose leftovers were removed.
    pub sandboxes: u32,
}

/// What a sandbox is made of. Holds no secret by construction.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The run the sandbox belongs to and ends with.
    pub run: RunId,
    /// `host`: a read-only view of the host's programs without its secrets.
    pub image: String,
    /// Limits on memory, processes, CPU and disk.
    pub limits: SandboxLimits,
    /// Host directory that becomes `/workspace` through a bounded writable layer.
    /// The directory itself is never written. `None` gives an empty workspace.
    pub workspace: Option<PathBuf>,
    /// Host git directory mounted read-only at [`BASE_GIT_DIR`].
    pub base_git: Option<PathBuf>,
    /// Host directory of installed agents mounted read-only at [`AGENTS_DIR`].
    pub agents_dir: Option<PathBuf>,
}

/// One live sandbox. Dropping it destroys the sandbox.
#[async_trait]
pub trait SandboxHandle: Send + Sync {
    /// Takes the boundary's listening sockets, once; the Guard serves them.
    ///
    /// Until the Guard accepts on them every connection from inside hangs or is
    /// refused: an unserved boundary is closed, not open.
    fn take_boundary(&mut self) -> Option<Boundary>;

    /// What the sandbox really got, measured, for events and receipts.
    fn evidence(&self) -> SandboxEvidence;

    /// Starts a command inside as the agent's user.
    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError>;

    /// Reads a regular file; more than `limit` bytes is [`SandboxError::TooLarge`].
    async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError>;

    /// Writes a file whole, making parent directories; replaces what was there.
    async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError>;

    /// Ends every process and removes every trace. Idempotent.
    async fn destroy(&self) -> Result<(), SandboxError>;

    /// Resolves when the sandbox has ended by itself (its Guest died), with the reason.
    async fn ended(&self) -> String;
}

/// Measured facts of one sandbox.
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

/// A command to start inside.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments; no shell is involved unless it is named here.
    pub argv: Vec<String>,
    /// The whole environment apart from `PATH`, `HOME`, `USER`, `LANG` and `TERM` defaults.
    pub env: BTreeMap<String, String>,
    /// Working directory; [`WORKSPACE`] when absent.
    pub cwd: Option<String>,
    /// Ends the whole tree when it passes. Zero is refused.
    pub timeout: Option<Duration>,
    /// Keep stdin open for [`Process::stdin`]; otherwise it is `/dev/null`.
    pub stdin: bool,
}

/// A started command. Dropping it kills the command's tree.
#[derive(Debug)]
pub struct Process {
    /// Bytes for standard input; dropping the sender closes it.
    pub stdin: mpsc::Sender<Bytes>,
    /// Output in the order it was written, ending with exactly one [`Output::Exited`].
    pub output: mpsc::Receiver<Output>,
}

/// A piece of what a command printed, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The command ended.
    Exited(Exit),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exit code.
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
    /// Its time was up and its tree was killed.
    TimedOut,
    /// The sandbox ended under it.
    SandboxGone,
}

/// Why a sandbox operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host lacks something the backend needs.
    #[error("this host cannot run the {backend} sandbox: {what}; {fix}")]
    Unsupported {
        /// Backend name.
        backend: &'static str,
        /// What is missing.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// A step of the set-up failed; nothing was left behind.
    #[error("could not set up the sandbox at step '{step}': {cause}")]
    Setup {
        /// The step, in words.
        step: String,
        /// The system's reason.
        cause: String,
    },
    /// The request itself was wrong.
    #[error("{0}")]
    Invalid(String),
    /// No such file inside.
    #[error("no such file in the sandbox: {0}")]
    NotFound(String),
    /// A file or an output is over its limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The sandbox's bounded writable layer is full.
    #[error("the sandbox's disk is full: {0}")]
    DiskFull(String),
    /// The operating system inside refused.
    #[error("{operation} failed in the sandbox: {cause}")]
    Inside {
        /// What was tried.
        operation: String,
        /// Why it failed.
        cause: String,
    },
    /// The sandbox has ended.
    #[error("the sandbox has ended: {0}")]
    Gone(String),
}
