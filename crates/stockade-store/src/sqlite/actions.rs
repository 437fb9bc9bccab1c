//! The actions table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{
    ActionId, ActionRecord, ApprovalState, RunId,
    admission::{AdmitRequest, PastAction},
    repeat,
};
use stockade_ports::{
    StoreError,
    ledger::{ActionRow, Asked},
};

use super::{
    approvals,
    change::Batch,
    codec::{from_json, json, parse},
    error::store_error,
};

/// Inserts an action at the end of its run, or replaces it where it stands.
pub(super) fn put(batch: &mut Batch, run: RunId, row: &ActionRow) -> Result<(), StoreError> {
    batch.say("INSERT INTO actions (id, run, place, in_flight, counts, asked, repetition, body) VALUES (");
    batch.values([row.record.id.to_string(), run.to_string()]);
    batch
        .say(", (SELECT COALESCE(MAX(place), 0) + 1 FROM actions WHERE run = ")
        .value(run.to_string());
    batch
        .say("), ")
        .values([row.record.in_flight(), row.counts()])
        .say(", ");
    batch
        .value(row.past.digest.to_string())
        .say(", ")
        .value(row.past.approved_repetition);
    batch.say(", ").value(json(&row.record)?).say(
        ") ON CONFLICT (id) DO UPDATE SET in_flight = excluded.in_flight, counts = excluded.counts, \
         asked = excluded.asked, repetition = excluded.repetition, body = excluded.body;\n",
    );
    Ok(())
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

/// What a decision about an action needs to know, in one question: each asks for a row or a few.
pub(super) async fn asked(db: &mut SqliteConnection, request: &AdmitRequest) -> Result<Asked, StoreError> {
    let query = sqlx::query(
        "SELECT 'earlier' AS what, 0 AS place, id, asked, repetition, body FROM actions WHERE id = $1 \
         UNION ALL SELECT 'named', 0, id, '', FALSE, body FROM approvals WHERE id = $2 \
         UNION ALL SELECT 'unused', requested_at, id, '', FALSE, body FROM approvals \
           WHERE run = $3 AND digest = $4 AND NOT used AND state <> $5 \
         UNION ALL SELECT 'past', place, id, asked, repetition, '' FROM actions \
           WHERE $6 AND run = $3 AND counts AND id <> $1 \
         ORDER BY 2, 3",
    )
    .bind(request.id.to_string())
    .bind(request.approval_id.to_string())
    .bind(request.run.to_string())
    .bind(request.action.digest().to_string())
    .bind(ApprovalState::Cancelled.as_str())
    .bind(repeat::is_watched(request.action.kind));
    let mut asked = Asked::default();
    for row in query.fetch_all(db).await.map_err(store_error)? {
        match row.try_get::<&str, _>("what").map_err(store_error)? {
            "earlier" => asked.earlier = Some(read(&row)?),
            "named" => asked.named = Some(approvals::read(&row)?),
            "unused" => asked.approvals.push(approvals::read(&row)?),
            _ => asked.history.push(past(&row)?),
        }
    }
    Ok(asked)
}
