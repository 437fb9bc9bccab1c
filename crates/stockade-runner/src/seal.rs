//! The receipt of a terminal run.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde_json::Value;
use stockade_domain::{
    EventType, Failure, RunId,
    receipt::{self, Statement},
};
use stockade_ports::{Store, StoreError};

use crate::mishap;

/// Name of the artifact.
pub const RECEIPT: &str = "receipt";
/// Events read at a time.
const PAGE: u32 = 500;

/// Makes, signs and stores the receipt; the first one made stays.
pub(crate) async fn seal(store: &dyn Store, key: &SigningKey, id: RunId) -> Result<(), Failure> {
    let failed = |error: StoreError| mishap::store(&error);
    if store.artifact(id, RECEIPT).await.is_ok() {
        return Ok(());
    }
    let run = store.run(None, id).await.map_err(failed)?;
    if !run.state().is_terminal() {
        let message = format!(
            "{id} is {}; a receipt is made of a run that has ended",
            run.state().as_str()
        );
        return Err(Failure::terminal("not_terminal", message));
    }
    let actions = store.actions(id).await.map_err(failed)?;
    let mut approvals = store.approvals(None, Some(id), None, u32::MAX).await.map_err(failed)?;
    approvals.reverse();
    let sandboxes = sandboxes(store, id).await.map_err(failed)?;
    let statement = Statement::new(run, actions, approvals, sandboxes);
    let envelope = receipt::sign(&statement, key);
    store
        .put_artifact(id, RECEIPT, Bytes::from(envelope))
        .await
        .map_err(failed)
}

/// The data of every `sandbox.ready` event.
async fn sandboxes(store: &dyn Store, id: RunId) -> Result<Vec<Value>, StoreError> {
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = store.events(id, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.seq;
        found.extend(
            page.into_iter()
                .filter(|e| e.kind == EventType::SandboxReady)
                .map(|e| e.data),
        );
    }
}
