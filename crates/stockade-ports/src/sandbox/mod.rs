//! The sandbox port: a place where an agent may do anything and from which nothing leaves.
//!
//! A backend makes a [`FreshSandbox`]: set up, its Guest answering, its boundary in place, and
//! nothing of the agent's in it yet. [`prove`] measures it from inside and only then turns it
//! into a [`SandboxHandle`], which is the first value a command can be started through.

mod error;
mod exec;
mod files;
mod handle;
mod proof;

use std::{any::Any, fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use stockade_domain::{RunId, SandboxLimits};

pub use error::SandboxError;
pub use exec::{Control, ExecRequest, Exit, Output, Process, ProcessCommand, PtySize};
pub use files::{Change, Download, Entry, EntryKind, Listing, Upload, Watched};
pub use handle::{Boundary, FreshSandbox, LimitHit, SandboxEvidence, SandboxHandle, Snapshot};
pub use proof::{Check, MEASURED_INSIDE, Measurement, ProbePlan, Proof, Witness, prove};

/// Where the repository appears inside every sandbox.
pub const WORKSPACE: &str = "/workspace";
/// Home of the agent's user inside every sandbox.
pub const AGENT_HOME: &str = "/home/agent";
/// Name of the one user there is inside every sandbox.
pub const AGENT_USER: &str = "agent";
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

    /// What the backend can do. Asked before a run starts, so that a run that needs more is
    /// refused then and not surprised later.
    fn capabilities(&self) -> Capabilities;

    /// Says whether this host can run the backend at all, and what is missing.
    ///
    /// Idempotent; starts nothing that outlives the call.
    async fn check(&self) -> Result<SandboxFacts, SandboxError>;

    /// Creates a sandbox with its boundary in place and its Guest answering.
    ///
    /// On error nothing is left behind. On cancel (the future is dropped) the
    /// half-made sandbox is destroyed in the background.
    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError>;

    /// Removes what sandboxes of a dead process left: processes, mounts, cgroups, files.
    ///
    /// Called once at boot, before the first `create`. Idempotent.
    async fn reap(&self) -> Result<Reaped, SandboxError>;
}

/// What a backend can do, whatever the host. What depends on the host is in [`SandboxFacts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whose kernel the agent talks to.
    pub kernel: Kernel,
    /// Runs without root.
    pub rootless: bool,
    /// Isolates at all. A backend that does not is for tests, and production refuses it.
    pub isolates: bool,
    /// OCI images as the root file system.
    pub images: bool,
    /// [`SandboxHandle::pause`] and [`SandboxHandle::resume`].
    pub pause: bool,
    /// [`SandboxHandle::snapshot`] and [`SandboxSpec::restore`].
    pub snapshot: bool,
    /// Keeps prepared sandboxes that are claimed without being made.
    pub warm_pool: bool,
    /// Limits it can enforce on a host that has what they need: of `memory`, `cpu`, `pids`,
    /// `io`, `disk`.
    pub limits: &'static [&'static str],
}

/// Whose kernel the agent talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The host's, through a system call filter.
    Shared,
    /// One of the sandbox's own, in user space or in a virtual machine.
    Own,
}

/// What a backend found out about this host.
#[derive(Debug, Clone, Default)]
pub struct SandboxFacts {
    /// `root` or `rootless`.
    pub mode: String,
    /// Limits that can be enforced here: of `memory`, `cpu`, `pids`, `io`, `disk`.
    pub enforced_limits: Vec<String>,
    /// Defences in force beside the namespaces, for example `seccomp`, `landlock=5`.
    pub defences: Vec<String>,
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
    /// What its root file system is made of.
    pub rootfs: RootFs,
    /// Limits on memory, processes, CPU, I/O and disk.
    pub limits: SandboxLimits,
    /// Host directory that becomes `/workspace` through a bounded writable layer.
    /// The directory itself is never written. `None` gives an empty workspace.
    pub workspace: Option<PathBuf>,
    /// Host git directory mounted read-only at [`BASE_GIT_DIR`].
    pub base_git: Option<PathBuf>,
    /// Host directory of installed agents mounted read-only at [`AGENTS_DIR`].
    pub agents_dir: Option<PathBuf>,
    /// Archive of a [`Snapshot`] whose writable layer the sandbox starts with. The workspace
    /// must be the same as when it was taken.
    pub restore: Option<PathBuf>,
}

impl SandboxSpec {
    /// A sandbox of the host's programs with an empty workspace and nothing else.
    #[must_use]
    pub fn plain(run: RunId) -> Self {
        Self {
            run,
            rootfs: RootFs::Host,
            limits: SandboxLimits::default(),
            workspace: None,
            base_git: None,
            agents_dir: None,
            restore: None,
        }
    }
}

/// What a root file system is made of.
#[derive(Debug, Clone)]
pub enum RootFs {
    /// A read-only view of the host's programs without its secrets and settings.
    Host,
    /// An OCI image.
    Image(Arc<ImageTree>),
}

impl RootFs {
    /// As events and receipts spell it: `host`, or the image's reference with its digest.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Image(tree) => &tree.pinned,
        }
    }
}

/// An image on this host's disk, ready to be mounted.
pub struct ImageTree {
    /// The reference with its digest: `registry/name@sha256:…`.
    pub pinned: String,
    /// Digest of the manifest for this platform: `sha256:…`.
    pub digest: String,
    /// The unpacked layers, the uppermost first, each fit to be an overlay's `lowerdir` with
    /// `userxattr`: whiteouts are character devices 0:0, opaque directories carry
    /// `user.overlay.opaque=y`.
    pub layers: Vec<PathBuf>,
    /// The environment the image asks for.
    pub env: Vec<(String, String)>,
    /// Keeps the layers from being collected as long as this value lives.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for ImageTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageTree")
            .field("pinned", &self.pinned)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
