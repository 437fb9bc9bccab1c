//! What holds a native sandbox: its launcher's lifeline.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use stockade_ports::sandbox::{RootFs, SandboxError, Snapshot};
use tokio::sync::watch;

use super::{
    snapshot::{self, Inside},
    supervise::Lifeline,
    zygote::Nursery,
};
use crate::{
    cgroup::{self, CgroupDir},
    failure::Failure,
    live::{Life, reason},
};

/// Signals alone cannot do it: what is forked between two of them goes on running.
const NO_FREEZER: &str = "pause here: the sandbox has no cgroup of its own; start stockade as root or in a \
    delegated cgroup (systemd-run --user --scope -p Delegate=yes stockade …)";

/// A sandbox behind its launcher.
pub(crate) struct NativeLife {
    pub(crate) lifeline: Lifeline,
    pub(crate) removed: watch::Receiver<Option<String>>,
    pub(crate) cgroups: Vec<CgroupDir>,
    /// Keeps the layers of an image from being collected.
    pub(crate) _rootfs: RootFs,
    pub(crate) inside: Inside,
    pub(crate) nursery: Arc<Nursery>,
}

#[async_trait]
impl Life for NativeLife {
    fn backend(&self) -> &'static str {
        crate::BACKEND
    }

    fn cut(&self) {
        self.lifeline.cut();
    }

    async fn gone(&self) {
        reason(self.removed.clone()).await;
    }

    fn cgroups(&self) -> &[CgroupDir] {
        &self.cgroups
    }

    async fn archive(&self, dir: &Path) -> Result<Snapshot, SandboxError> {
        snapshot::archive(&self.nursery, &self.inside, dir).await
    }

    async fn freeze(&self, frozen: bool) -> Result<(), SandboxError> {
        if !cgroup::can_freeze(&self.cgroups) {
            return Err(self.incapable(NO_FREEZER));
        }
        let cgroups = self.cgroups.clone();
        let done = tokio::task::spawn_blocking(move || cgroup::freeze(&cgroups, frozen)).await;
        done.map_err(|e| Failure::new("pause the sandbox", e))
            .and_then(|done| done)
            .map_err(Failure::into_error)
    }
}
