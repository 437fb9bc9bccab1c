//! The approvals table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{Approval, ApprovalId, ApprovalState, RunId, TeamId, Timestamp};
use stockade_ports::StoreError;

use super::{
    change::Batch,
    codec::{from_json, json, millis},
    error::{missing, store_error},
};

pub(super) fn put(batch: &mut Batch, team: TeamId, approval: &Approval) -> Result<(), StoreError> {
    batch.say("INSERT INTO approvals (id, run, team, digest, state, used, requested_at, expires_at, body) VALUES (");
    let ids = [approval.id.to_string(), approval.run.to_string(), team.to_string()];
    batch
        .values(ids)
        .say(", ")
        .values([approval.digest.to_string(), approval.state.as_str().to_owned()]);
    batch.say(", ").value(approval.used_at.is_some()).say(", ");
    batch
        .values([millis(approval.requested_at), millis(approval.expires_at)])
        .say(", ");
    batch
        .value(json(approval)?)
        .say(") ON CONFLICT (id) DO UPDATE SET state = excluded.state, used = excluded.used, body = excluded.body;\n");
    Ok(())
}

pub(super) fn read(row: &SqliteRow) -> Result<Approval, StoreError> {
    from_json(row.try_get("body").map_err(store_error)?)
}

/// An approval, of a team where one is named.
pub(super) async fn get(
    db: &mut SqliteConnection,
    team: Option<TeamId>,
    id: ApprovalId,
) -> Result<Approval, StoreError> {
    let query = sqlx::query("SELECT body FROM approvals WHERE id = $1 AND ($2 IS NULL OR team = $2)")
        .bind(id.to_string())
        .bind(team.map(|team| team.to_string()));
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    read(row.as_ref().ok_or_else(|| missing("approval", id))?)
}

/// A run's pending approvals, oldest first.
pub(super) async fn pending(db: &mut SqliteConnection, run: RunId) -> Result<Vec<Approval>, StoreError> {
    let query = sqlx::query("SELECT body FROM approvals WHERE run = $1 AND state = $2 ORDER BY requested_at, id")
        .bind(run.to_string())
        .bind(ApprovalState::Pending.as_str());
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}

/// Pending approvals whose time has passed, oldest first.
pub(super) async fn due(db: &mut SqliteConnection, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
    // The state is spelled out so that the partial index serves this.
    let query = sqlx::query(
        "SELECT body FROM approvals WHERE state = 'pending' AND expires_at <= $1 ORDER BY requested_at, id",
    )
    .bind(millis(now));
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}

/// Approvals, newest first.
pub(super) async fn list(
    db: &mut SqliteConnection,
    team: Option<TeamId>,
    run: Option<RunId>,
    state: Option<ApprovalState>,
    limit: u32,
) -> Result<Vec<Approval>, StoreError> {
    let query = sqlx::query(
        "SELECT body FROM approvals WHERE ($1 IS NULL OR team = $1) AND ($2 IS NULL OR run = $2) \
         AND ($3 IS NULL OR state = $3) ORDER BY requested_at DESC, id DESC LIMIT $4",
    )
    .bind(team.map(|team| team.to_string()))
    .bind(run.map(|run| run.to_string()))
    .bind(state.map(ApprovalState::as_str))
    .bind(i64::from(limit));
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}
