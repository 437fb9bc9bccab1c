//! The tokens table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{TeamId, TokenId};
use stockade_ports::{StoreError, TokenRecord};

use super::{
    codec::{from_json, json, millis},
    error::{missing, store_error, taken},
};

fn read(row: &SqliteRow) -> Result<TokenRecord, StoreError> {
    from_json(row.try_get("body").map_err(store_error)?)
}

pub(super) async fn insert(db: &mut SqliteConnection, token: &TokenRecord) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO tokens (id, team, secret_sha256, created_at, body) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(token.id.to_string())
    .bind(token.team.to_string())
    .bind(&token.secret_sha256)
    .bind(millis(token.created_at))
    .bind(json(token)?);
    match query.execute(db).await.map_err(store_error)?.rows_affected() {
        1 => Ok(()),
        _ => Err(taken("token", token.id)),
    }
}

pub(super) async fn update(db: &mut SqliteConnection, token: &TokenRecord) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE tokens SET body = $2 WHERE id = $1")
        .bind(token.id.to_string())
        .bind(json(token)?);
    query.execute(db).await.map_err(store_error).map(drop)
}

pub(super) async fn get(db: &mut SqliteConnection, team: TeamId, id: TokenId) -> Result<TokenRecord, StoreError> {
    let query = sqlx::query("SELECT body FROM tokens WHERE id = $1 AND team = $2")
        .bind(id.to_string())
        .bind(team.to_string());
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    read(row.as_ref().ok_or_else(|| missing("token", id))?)
}

pub(super) async fn by_digest(db: &mut SqliteConnection, secret_sha256: &str) -> Result<TokenRecord, StoreError> {
    let query = sqlx::query("SELECT body FROM tokens WHERE secret_sha256 = $1").bind(secret_sha256);
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    // The digest of a secret is not repeated in an error.
    read(row.as_ref().ok_or_else(|| missing("token", "with this secret"))?)
}

/// Tokens of a team, newest first.
pub(super) async fn list(db: &mut SqliteConnection, team: TeamId) -> Result<Vec<TokenRecord>, StoreError> {
    let query =
        sqlx::query("SELECT body FROM tokens WHERE team = $1 ORDER BY created_at DESC, id DESC").bind(team.to_string());
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}
