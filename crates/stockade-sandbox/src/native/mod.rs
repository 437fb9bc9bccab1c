//! The backend `native`: plain Linux namespaces, as root or as an ordinary user.

pub(crate) mod etc;
mod handle;
mod host;
pub(crate) mod launch;
mod pool;
mod reap;
mod snapshot;
mod start;
mod supervise;
mod zygote;

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use nix::unistd::geteuid;
use stockade_ports::sandbox::{
    Capabilities, FreshSandbox, Kernel, Reaped, Sandbox, SandboxError, SandboxFacts, SandboxSpec,
};
use tokio::sync::OnceCell;

use self::{host::Host, pool::Pool, zygote::Nursery};
use crate::{
    BACKEND,
    failure::{Failure, Step},
    request::checked,
};

pub(crate) use self::{
    host::{generated_etc, private_directory, unique},
    reap::{reap, remove_old_images, subdirectories},
};

/// Least space a sandbox can work with.
pub(crate) const MIN_DISK: u64 = 1 << 20;

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Program and arguments that run [`crate::launcher_main`], for the host binary
    /// itself and its hidden subcommand.
    pub launcher: Vec<OsString>,
    /// Directory for what sandboxes keep on the host while they live. Made with mode
    /// 0700 when it is missing; belongs to the user this process runs as.
    pub state_dir: PathBuf,
    /// Copy workspaces into the sandbox's bounded layer instead of stacking that layer
    /// over them: directories of the repository can then be renamed in one step, for
    /// the price of the copy. Kernels before 6.6 always copy.
    pub copy_workspace: bool,
    /// How many sandboxes to keep ready for runs to come, from the first use of the backend on.
    /// They are of the kind that was asked for last; a run of another kind gets one that is made
    /// for it. Zero keeps none.
    pub warm: u32,
}

/// Makes native sandboxes.
pub struct NativeSandbox(Arc<Inner>);

/// What the pool's task shares with the backend.
pub(crate) struct Inner {
    config: NativeConfig,
    host: OnceCell<Arc<Host>>,
    nursery: Arc<Nursery>,
    pool: Pool,
}

impl NativeSandbox {
    /// Makes the backend; nothing happens on the host before it is first used.
    #[must_use]
    pub fn new(config: NativeConfig) -> Self {
        Self(Arc::new(Inner {
            host: OnceCell::new(),
            nursery: Arc::new(Nursery::new(config.launcher.clone())),
            pool: Pool::new(config.warm),
            config,
        }))
    }

    /// How many sandboxes are ready to be claimed now.
    #[must_use]
    pub fn warm(&self) -> usize {
        self.0.pool.ready()
    }
}

impl Inner {
    async fn host(self: &Arc<Self>) -> Result<Arc<Host>, SandboxError> {
        let prepare = || async {
            let state_dir = self.config.state_dir.clone();
            let prepared = tokio::task::spawn_blocking(move || Host::prepare(&state_dir)).await;
            let host = prepared.step("prepare the host").and_then(|host| host)?;
            pool::keep_filled(self);
            Ok(Arc::new(host))
        };
        let host = self.host.get_or_try_init(prepare).await;
        host.cloned().map_err(Failure::into_error)
    }
}

fn mode() -> &'static str {
    if geteuid().is_root() { "root" } else { "rootless" }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    fn name(&self) -> &'static str {
        BACKEND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kernel: Kernel::Shared,
            rootless: true,
            isolates: true,
            images: true,
            pause: true,
            snapshot: true,
            warm_pool: true,
            limits: &["memory", "cpu", "pids", "io", "disk"],
        }
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        let host = self.0.host().await?;
        // The only honest answer to "does it work here" is one that worked.
        let trial = SandboxSpec::plain(stockade_domain::RunId::from_uuid(uuid::Uuid::nil()));
        let mut trial = self.0.make(&trial, false).await?.live;
        let ipv6 = trial.boundary.take().is_some_and(|b| b.tcp6.is_some());
        trial.end().await;
        let mut notes = host.notes();
        if !ipv6 {
            notes.push("this host has no IPv6: sandboxes drop it".to_owned());
        }
        if !geteuid().is_root() {
            notes.push("rootless: the sandbox keeps this user's supplementary groups for files it is given".to_owned());
        }
        Ok(SandboxFacts {
            mode: mode().to_owned(),
            enforced_limits: host.enforced(),
            defences: crate::filter::defences(),
            notes,
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError> {
        let spec = checked(spec)?;
        self.0.host().await?;
        if let Some(live) = self.0.claim(&spec).await {
            return Ok(Box::new(live));
        }
        Ok(Box::new(self.0.make(&spec, false).await?.live))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        let state_dir = self.0.config.state_dir.clone();
        let reaped = tokio::task::spawn_blocking(move || reap(&state_dir)).await;
        let reaped = reaped.step("reap").and_then(|r| r);
        let sandboxes = reaped.map_err(Failure::into_error)?;
        Ok(Reaped { sandboxes })
    }
}
