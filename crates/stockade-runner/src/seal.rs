//! The receipt of a terminal run.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use stockade_domain::{
    Failure, RunId,
    receipt::{self, Evidence, Statement},
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
    let evidence = evidence(store, id).await.map_err(failed)?;
    let statement = Statement::new(run, actions, approvals, evidence);
    let envelope = receipt::sign(&statement, key);
    store
        .put_artifact(id, RECEIPT, Bytes::from(envelope))
        .await
        .map_err(failed)
}

/// What stands in the run's events alone.
async fn evidence(store: &dyn Store, id: RunId) -> Result<Evidence, StoreError> {
    let mut evidence = Evidence::default();
    let mut after = 0;
    loop {
        let page = store.events(id, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(evidence) };
        after = last.seq;
        page.into_iter().for_each(|event| evidence.take(event));
    }
}
