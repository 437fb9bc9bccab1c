//! The messages table.

use sqlx::{Row, SqliteConnection};
use stockade_domain::RunId;
use stockade_ports::{Message, StoreError};

use super::{
    change::Batch,
    codec::{from_json, json, place, signed, unsigned},
    error::store_error,
};

pub(super) fn insert(batch: &mut Batch, run: RunId, message: &Message) -> Result<(), StoreError> {
    batch
        .say("INSERT INTO messages (run, seq, body) VALUES (")
        .value(run.to_string());
    batch
        .say(", ")
        .value(signed(message.seq)?)
        .say(", ")
        .value(json(message)?)
        .say(");\n");
    Ok(())
}

/// The place of a run's last message; 0 when there is none.
pub(super) async fn last(db: &mut SqliteConnection, run: RunId) -> Result<u64, StoreError> {
    let query = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM messages WHERE run = $1").bind(run.to_string());
    unsigned(query.fetch_one(db).await.map_err(store_error)?)
}

pub(super) async fn list(db: &mut SqliteConnection, run: RunId, after: u64) -> Result<Vec<Message>, StoreError> {
    let query = sqlx::query("SELECT body FROM messages WHERE run = $1 AND seq > $2 ORDER BY seq")
        .bind(run.to_string())
        .bind(place(after));
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    let read = |row: &_| from_json(Row::try_get(row, "body").map_err(store_error)?);
    rows.iter().map(read).collect()
}
