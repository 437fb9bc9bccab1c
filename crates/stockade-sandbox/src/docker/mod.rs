//! The backend `docker`: containers of a local Docker daemon, through its Engine API.
//!
//! ```text
//! host process ──HTTP over the daemon's socket── dockerd ── containerd ── runc ── Guest (pid 1)
//!   │ ▲   attached: the Guest's input and output                                   ▲
//!   │ └── boundary sockets, bound inside the container's network namespace ────────┘
//!   └──── the tree, mounted on the host until the container has it
//! ```
//!
//! The container has no network of the daemon's, no capability, a read-only root and a first
//! system call filter; the Guest adds the one every backend has before anything of the agent's
//! runs. Its input is this process's connection: when that ends, `kill -9` included, the Guest ends, and
//! the daemon removes the container by itself.

mod container;
mod daemon;
mod den;
mod flat;
mod import;
mod life;
mod memory;
mod reap;
mod seccomp;
mod start;
mod stream;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use async_trait::async_trait;
use nix::unistd::geteuid;
use stockade_ports::sandbox::{
    Capabilities, FreshSandbox, Kernel, Reaped, Sandbox, SandboxError, SandboxFacts, SandboxSpec,
};
use tokio::sync::{OnceCell, oneshot};

use self::{
    daemon::{Daemon, unsupported},
    life::DockerLife,
};
use crate::{
    cgroup::disk_paths,
    failure::{Failure, Step as _},
    live::Live,
    native::private_directory,
    owner::ProcessId,
    request::checked,
    tree::HostFiles,
};

/// Backend name in configuration, errors and receipts.
const BACKEND: &str = "docker";

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The daemon's socket, by custom `/var/run/docker.sock`.
    pub socket: PathBuf,
    /// Directory for what sandboxes keep on the host while they live. Made with mode 0700 when it
    /// is missing.
    pub state_dir: PathBuf,
}

/// Makes containers of a local Docker daemon. Needs root.
pub struct DockerSandbox {
    config: DockerConfig,
    host: OnceCell<Arc<Host>>,
}

/// What is found out and made once per process.
struct Host {
    daemon: Daemon,
    owner: ProcessId,
    files: HostFiles,
    state_dir: PathBuf,
    serial: AtomicU64,
}

impl DockerSandbox {
    /// Makes the backend; nothing happens before it is first used.
    #[must_use]
    pub fn new(config: DockerConfig) -> Self {
        Self {
            config,
            host: OnceCell::new(),
        }
    }

    async fn host(&self) -> Result<Arc<Host>, SandboxError> {
        self.host.get_or_try_init(|| Host::prepare(&self.config)).await.cloned()
    }

    async fn make(&self, spec: SandboxSpec) -> Result<Live<DockerLife>, SandboxError> {
        let spec = checked(spec)?;
        if spec.restore.is_some() {
            return Err(SandboxError::Incapable {
                backend: BACKEND,
                what: "restore snapshots",
            });
        }
        let host = self.host().await?;
        let (done, made) = oneshot::channel();
        // A request that was sent cannot be taken back: the set-up goes on when nobody waits for
        // it any more, as far as the next step, and then undoes what it did.
        tokio::spawn(async move {
            let made = start::start(&host, spec, &done).await;
            // A sandbox nobody takes is dropped here, and so ended.
            let _ = done.send(made);
        });
        let lost = || SandboxError::Gone("this process is ending".to_owned());
        made.await.unwrap_or_else(|_| Err(lost()))
    }
}

impl Host {
    async fn prepare(config: &DockerConfig) -> Result<Arc<Self>, SandboxError> {
        if !geteuid().is_root() {
            return Err(unsupported(
                "this process is not root, and only root can prepare a container's network",
                "run stockade as root, or use the native backend, which needs no root",
            ));
        }
        let daemon = Daemon::reach(&config.socket).await?;
        let state_dir = config.state_dir.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let step = format!("make the state directory {}", state_dir.display());
            private_directory(&state_dir).step(step.as_str())?;
            let state_dir = state_dir.canonicalize().step(step.as_str())?;
            let owner = ProcessId::own().step("identify this process")?;
            let files = HostFiles::prepare(&state_dir, &owner)?;
            Ok((owner, files, state_dir))
        });
        let prepared = prepared.await.step("prepare the host").and_then(|prepared| prepared);
        let (owner, files, state_dir) = prepared.map_err(error)?;
        Ok(Arc::new(Self {
            daemon,
            owner,
            files,
            state_dir,
            serial: AtomicU64::new(0),
        }))
    }

    /// Limits that can be enforced here.
    fn enforced(&self) -> Vec<String> {
        let mut all: Vec<_> = self.daemon.limits().into_iter().map(str::to_owned).collect();
        if !disk_paths([Path::new("/usr"), Path::new("/")]).is_empty() {
            all.push("io".to_owned());
        }
        all.push("disk".to_owned());
        all
    }
}

/// The port's error for a failed step of this backend.
fn error(failure: Failure) -> SandboxError {
    match failure.fix {
        Some(fix) => unsupported(format!("{}: {}", failure.step, failure.cause), fix),
        None => SandboxError::Setup {
            step: failure.step,
            cause: failure.cause,
        },
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kernel: Kernel::Shared,
            rootless: false,
            isolates: true,
            images: true,
            pause: true,
            snapshot: false,
            warm_pool: false,
            limits: &["memory", "cpu", "pids", "io", "disk"],
        }
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        let host = self.host().await?;
        // The only honest answer to "does it work here" is one that worked. It also shows that
        // the daemon is on this host and sees the same files.
        let trial = SandboxSpec::plain(stockade_domain::RunId::from_uuid(uuid::Uuid::nil()));
        let live = self.make(trial).await?;
        let ipv6 = live.boundary.as_ref().is_some_and(|boundary| boundary.tcp6.is_some());
        live.end().await;
        let mut defences = vec!["seccomp".to_owned()];
        defences.extend(host.daemon.modules());
        let mut notes = host.daemon.notes();
        if !ipv6 {
            notes.push("this host has no IPv6: sandboxes drop it".to_owned());
        }
        notes.push(format!(
            "the agent's processes run as uid {} of the host: give that uid to nobody else",
            crate::INSIDE_ID
        ));
        Ok(SandboxFacts {
            mode: "root".to_owned(),
            enforced_limits: host.enforced(),
            defences,
            notes,
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError> {
        Ok(Box::new(self.make(spec).await?))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        let host = self.host().await?;
        let sandboxes = reap::reap(&host).await?;
        Ok(Reaped { sandboxes })
    }
}
