//! Writing what the ledger worked out.

use sqlx::SqliteConnection;
use stockade_ports::{StoreError, ledger::Change};

use super::{actions, approvals, events, messages, runs};

/// Writes a change of a run that is stored already. The caller commits.
pub(super) async fn write(db: &mut SqliteConnection, change: &Change) -> Result<(), StoreError> {
    let run = change.run();
    runs::update(db, &change.held).await?;
    for event in &change.events {
        events::insert(db, event).await?;
    }
    for row in &change.actions {
        actions::put(db, run, row).await?;
    }
    for approval in &change.approvals {
        approvals::put(db, change.held.run.team, approval).await?;
    }
    if let Some(message) = &change.message {
        messages::insert(db, run, message).await?;
    }
    Ok(())
}
