//! The artifacts table.

use bytes::Bytes;
use sqlx::{Row, SqliteConnection};
use stockade_domain::RunId;
use stockade_ports::StoreError;

use super::error::{missing, store_error};

/// Keeps an artifact, unless the run has one of that name.
pub(super) async fn put(db: &mut SqliteConnection, run: RunId, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let query = sqlx::query("INSERT INTO artifacts (run, name, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(run.to_string())
        .bind(name)
        .bind(content);
    query.execute(db).await.map_err(store_error).map(drop)
}

pub(super) async fn get(db: &mut SqliteConnection, run: RunId, name: &str) -> Result<Bytes, StoreError> {
    let query = sqlx::query("SELECT content FROM artifacts WHERE run = $1 AND name = $2")
        .bind(run.to_string())
        .bind(name);
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    let row = row.ok_or_else(|| missing("artifact", format!("{name} of {run}")))?;
    let content: Vec<u8> = row.try_get("content").map_err(store_error)?;
    Ok(content.into())
}
