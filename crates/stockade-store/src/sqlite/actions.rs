//! The actions table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{
    ActionId, ActionRecord, RunId,
    admission::{AdmitRequest, PastAction},
    repeat,
};
use stockade_ports::{
    StoreError,
    ledger::{ActionRow, Asked},
};

use super::{
    approvals,
    codec::{from_json, json, parse},
    error::store_error,
};

/// Inserts an action at the end of its run, or replaces it where it stands.
pub(super) async fn put(db: &mut SqliteConnection, run: RunId, row: &ActionRow) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO actions (id, run, place, in_flight, counts, asked, repetition, body) \
         VALUES ($1, $2, (SELECT COALESCE(MAX(place), 0) + 1 FROM actions WHERE run = $2), $3, $4, $5, $6, $7) \
         ON CONFLICT (id) DO UPDATE SET in_flight = excluded.in_flight, counts = excluded.counts, \
         asked = excluded.asked, repetition = excluded.repetition, body = excluded.body",
    )
    .bind(row.record.id.to_string())
    .bind(run.to_string())
    .bind(row.record.in_flight())
    .bind(row.counts())
    .bind(row.past.digest.to_string())
    .bind(row.past.approved_repetition)
    .bind(json(&row.record)?);
    query.execute(db).await.map_err(store_error).map(drop)
}

fn past(row: &SqliteRow) -> Result<PastAction, StoreError> {
    Ok(PastAction {
        digest: parse(row.try_get::<&str, _>("asked").map_err(store_error)?)?,
        approved_repetition: row.try_get("repetition").map_err(store_error)?,
    })
}

fn read(row: &SqliteRow) -> Result<ActionRow, StoreError> {
    Ok(ActionRow {
        record: from_json(row.try_get::<&str, _>("body").map_err(store_error)?)?,
        past: past(row)?,
    })
}

/// The action with this id, of whichever run.
pub(super) async fn find(db: &mut SqliteConnection, id: ActionId) -> Result<Option<ActionRow>, StoreError> {
    let query = sqlx::query("SELECT asked, repetition, body FROM actions WHERE id = $1").bind(id.to_string());
    query
        .fetch_optional(db)
        .await
        .map_err(store_error)?
        .as_ref()
        .map(read)
        .transpose()
}

pub(super) async fn in_flight(db: &mut SqliteConnection, run: RunId) -> Result<Vec<ActionRow>, StoreError> {
    let query = sqlx::query("SELECT asked, repetition, body FROM actions WHERE run = $1 AND in_flight ORDER BY place")
        .bind(run.to_string());
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}

pub(super) async fn list(db: &mut SqliteConnection, run: RunId) -> Result<Vec<ActionRecord>, StoreError> {
    let query =
        sqlx::query("SELECT asked, repetition, body FROM actions WHERE run = $1 ORDER BY place").bind(run.to_string());
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| Ok(read(row)?.record)).collect()
}

/// What a decision about an action needs to know.
pub(super) async fn asked(db: &mut SqliteConnection, request: &AdmitRequest) -> Result<Asked, StoreError> {
    Ok(Asked {
        earlier: find(db, request.id).await?,
        named: approvals::find(db, request.approval_id).await?,
        approvals: approvals::unused(db, request.run, request.action.digest()).await?,
        history: match repeat::is_watched(request.action.kind) {
            true => history(db, request).await?,
            false => Vec::new(),
        },
    })
}

async fn history(db: &mut SqliteConnection, request: &AdmitRequest) -> Result<Vec<PastAction>, StoreError> {
    let query =
        sqlx::query("SELECT asked, repetition FROM actions WHERE run = $1 AND counts AND id <> $2 ORDER BY place")
            .bind(request.run.to_string())
            .bind(request.id.to_string());
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(past)
        .collect()
}
