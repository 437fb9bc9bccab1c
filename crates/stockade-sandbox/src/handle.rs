//! One live native sandbox.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use stockade_ports::sandbox::{Boundary, ExecRequest, Process, SandboxError, SandboxEvidence, SandboxHandle};
use tokio::sync::watch;

use crate::{client::Client, supervise::Lifeline};

/// A sandbox whose Guest answers. Dropping it ends the sandbox.
pub(crate) struct NativeHandle {
    pub(crate) client: Client,
    pub(crate) lifeline: Lifeline,
    pub(crate) removed: watch::Receiver<Option<String>>,
    pub(crate) boundary: Mutex<Option<Boundary>>,
    pub(crate) evidence: SandboxEvidence,
}

impl Drop for NativeHandle {
    fn drop(&mut self) {
        self.lifeline.cut();
    }
}

async fn reason(mut watched: watch::Receiver<Option<String>>) -> String {
    match watched.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        // The task that would have told is gone, and with it the runtime or the sandbox.
        Err(_) => "its supervisor is gone".to_owned(),
    }
}

#[async_trait]
impl SandboxHandle for NativeHandle {
    fn take_boundary(&mut self) -> Option<Boundary> {
        self.boundary.get_mut().ok()?.take()
    }

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

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.lifeline.cut();
        reason(self.removed.clone()).await;
        Ok(())
    }

    async fn ended(&self) -> String {
        reason(self.client.ended()).await
    }
}
