//! The secrets table.

use bytes::Bytes;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{SecretName, TeamId, Timestamp};
use stockade_ports::{SecretRecord, StoreError};

use super::{
    codec::{parse, unsigned},
    error::{missing, store_error},
};

const COLUMNS: &str = "team, name, created_at, updated_at, version, sealed";

fn read(row: &SqliteRow) -> Result<SecretRecord, StoreError> {
    let text = |column: &str| row.try_get::<&str, _>(column).map_err(store_error);
    let sealed: Vec<u8> = row.try_get("sealed").map_err(store_error)?;
    Ok(SecretRecord {
        team: parse(text("team")?)?,
        name: parse(text("name")?)?,
        created_at: parse(text("created_at")?)?,
        updated_at: parse(text("updated_at")?)?,
        version: unsigned(row.try_get("version").map_err(store_error)?)?,
        sealed: sealed.into(),
    })
}

pub(super) async fn put(
    db: &mut SqliteConnection,
    team: TeamId,
    name: &SecretName,
    sealed: Bytes,
    now: Timestamp,
) -> Result<SecretRecord, StoreError> {
    let text = format!(
        "INSERT INTO secrets ({COLUMNS}) VALUES ($1, $2, $3, $3, 1, $4) ON CONFLICT (team, name) DO UPDATE \
         SET updated_at = excluded.updated_at, version = version + 1, sealed = excluded.sealed RETURNING {COLUMNS}"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(team.to_string())
        .bind(name.as_str())
        .bind(now.to_string())
        .bind(&*sealed);
    read(&query.fetch_one(db).await.map_err(store_error)?)
}

/// Secrets of a team, by name (in the order of bytes, as everywhere).
pub(super) async fn list(db: &mut SqliteConnection, team: TeamId) -> Result<Vec<SecretRecord>, StoreError> {
    let text = format!("SELECT {COLUMNS} FROM secrets WHERE team = $1 ORDER BY name");
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(team.to_string());
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(read).collect()
}

pub(super) async fn get(
    db: &mut SqliteConnection,
    team: TeamId,
    name: &SecretName,
) -> Result<SecretRecord, StoreError> {
    one(
        db,
        format!("SELECT {COLUMNS} FROM secrets WHERE team = $1 AND name = $2"),
        team,
        name,
    )
    .await
}

pub(super) async fn remove(
    db: &mut SqliteConnection,
    team: TeamId,
    name: &SecretName,
) -> Result<SecretRecord, StoreError> {
    let text = format!("DELETE FROM secrets WHERE team = $1 AND name = $2 RETURNING {COLUMNS}");
    one(db, text, team, name).await
}

async fn one(
    db: &mut SqliteConnection,
    text: String,
    team: TeamId,
    name: &SecretName,
) -> Result<SecretRecord, StoreError> {
    let query = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(team.to_string())
        .bind(name.as_str());
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    read(row.as_ref().ok_or_else(|| missing("secret", name))?)
}
