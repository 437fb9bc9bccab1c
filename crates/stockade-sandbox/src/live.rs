//! One live sandbox of any backend: the Guest does the work, the backend's [`Life`] holds it.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::SandboxLimits;
use stockade_ports::sandbox::{
    Boundary, Download, Entry, ExecRequest, FreshSandbox, LimitHit, Listing, Measurement, ProbePlan, Process, Proof,
    SandboxError, SandboxEvidence, SandboxHandle, Snapshot, Upload, Watched,
};
use tokio::sync::watch;

use crate::{
    cgroup::{self, CgroupDir, OUT_OF_MEMORY, OUT_OF_PROCESSES},
    client::Client,
    measure,
};

/// What differs between backends once the Guest answers.
#[async_trait]
pub(crate) trait Life: Send + Sync + 'static {
    /// Backend name.
    fn backend(&self) -> &'static str;

    /// Begins to end the sandbox and returns at once. Idempotent; also called on drop.
    fn cut(&self);

    /// Resolves when the sandbox and its traces are gone.
    async fn gone(&self);

    /// The cgroups everything of the sandbox is in, with its limits.
    fn cgroups(&self) -> &[CgroupDir];

    /// Stops every process where it stands, or lets them go on.
    async fn freeze(&self, _frozen: bool) -> Result<(), SandboxError> {
        Err(self.incapable("pause"))
    }

    /// Archives the writable layer; the sandbox is frozen.
    async fn archive(&self, _dir: &Path) -> Result<Snapshot, SandboxError> {
        Err(self.incapable("take snapshots"))
    }

    /// The error for what the backend's capabilities deny.
    fn incapable(&self, what: &'static str) -> SandboxError {
        SandboxError::Incapable {
            backend: self.backend(),
            what,
        }
    }
}

/// A sandbox whose Guest answers. Dropping it ends the sandbox.
pub(crate) struct Live<L: Life> {
    pub(crate) client: Client,
    pub(crate) boundary: Option<Boundary>,
    pub(crate) evidence: SandboxEvidence,
    /// What was asked for; what of it this host can enforce is in the evidence.
    pub(crate) limits: SandboxLimits,
    /// Names of the limits this host enforces.
    pub(crate) enforced: Vec<String>,
    pub(crate) life: Arc<L>,
}

impl<L: Life> Drop for Live<L> {
    fn drop(&mut self) {
        self.life.cut();
    }
}

impl<L: Life> Live<L> {
    pub(crate) async fn end(&self) {
        self.life.cut();
        self.life.gone().await;
    }

    /// The names of the limits the sandbox ran into.
    async fn hit(&self) -> Vec<&'static str> {
        let life = Arc::clone(&self.life);
        let counted = tokio::task::spawn_blocking(move || cgroup::limits_hit(life.cgroups())).await;
        let mut hit = counted.unwrap_or_default();
        // With the sandbox its counters are gone; what is left is the reason for its end.
        let reason = self.client.ended().borrow().clone().unwrap_or_default();
        for (limit, words) in [("memory", OUT_OF_MEMORY), ("pids", OUT_OF_PROCESSES)] {
            if reason.contains(words) && !hit.contains(&limit) {
                hit.push(limit);
            }
        }
        if self.client.is_full().await {
            hit.push("disk");
        }
        hit
    }

    /// The reason for the end of the conversation with the Guest, once it has ended.
    pub(crate) async fn reason(&self) -> String {
        reason(self.client.ended()).await
    }
}

/// Waits for a reason to be told.
pub(crate) async fn reason(mut watched: watch::Receiver<Option<String>>) -> String {
    match watched.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // The task that would have told is gone, and with it the runtime or the sandbox.
        Err(_) => "its supervisor is gone".to_owned(),
    }
}

#[async_trait]
impl<L: Life> FreshSandbox for Live<L> {
    fn take_boundary(&mut self) -> Option<Boundary> {
        self.boundary.take()
    }

    fn evidence(&self) -> SandboxEvidence {
        self.evidence.clone()
    }

    async fn measure(&self, plan: &ProbePlan) -> Result<Measurement, SandboxError> {
        measure::measure(self, plan).await
    }

    fn release(self: Box<Self>, _proof: Proof) -> Arc<dyn SandboxHandle> {
        Arc::new(*self)
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.end().await;
        Ok(())
    }
}

#[async_trait]
impl<L: Life> SandboxHandle for Live<L> {
    fn evidence(&self) -> SandboxEvidence {
        self.evidence.clone()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.client.exec(request).await
    }

    async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        self.client.read_file(path, limit).await
    }

    async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError> {
        self.client.write_file(path, content, mode).await
    }

    async fn download(&self, path: &str, limit: u64) -> Result<Download, SandboxError> {
        self.client.download(path, limit).await
    }

    async fn upload(&self, path: &str, mode: u32, limit: u64) -> Result<Upload, SandboxError> {
        self.client.upload(path, mode, limit).await
    }

    async fn stat(&self, path: &str) -> Result<Entry, SandboxError> {
        self.client.stat(path).await
    }

    async fn list(&self, path: &str, depth: u32, limit: u32) -> Result<Listing, SandboxError> {
        self.client.list(path, depth, limit).await
    }

    async fn make_dir(&self, path: &str, mode: u32) -> Result<(), SandboxError> {
        self.client.make_dir(path, mode).await
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), SandboxError> {
        self.client.remove(path, recursive).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), SandboxError> {
        self.client.rename(from, to).await
    }

    async fn watch(&self, path: &str, recursive: bool) -> Result<Watched, SandboxError> {
        self.client.watch(path, recursive).await
    }

    async fn pause(&self) -> Result<(), SandboxError> {
        self.life.freeze(true).await
    }

    async fn resume(&self) -> Result<(), SandboxError> {
        self.life.freeze(false).await
    }

    async fn snapshot(&self, dir: &Path) -> Result<Snapshot, SandboxError> {
        self.life.freeze(true).await?;
        let kept = self.life.archive(dir).await;
        self.life.freeze(false).await?;
        kept
    }

    async fn stop(&self, grace: Duration) -> Result<(), SandboxError> {
        self.client.terminate(grace).await;
        self.end().await;
        Ok(())
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.end().await;
        Ok(())
    }

    async fn limits_hit(&self) -> Vec<LimitHit> {
        let value = |limit: &str| match limit {
            "memory" => self.limits.memory_bytes,
            "pids" => self.limits.pids,
            _ => self.limits.disk_bytes,
        };
        let hit = self.hit().await.into_iter();
        hit.map(|limit| LimitHit {
            limit,
            value: value(limit),
        })
        .collect()
    }

    async fn ended(&self) -> String {
        self.reason().await
    }
}
