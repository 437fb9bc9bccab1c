//! The revocations table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{Revocation, RevocationId, TeamId};
use stockade_ports::StoreError;

use super::{
    codec::{from_json, json, millis},
    error::{missing, store_error, taken},
};

fn read(row: &SqliteRow) -> Result<Revocation, StoreError> {
    from_json(row.try_get("body").map_err(store_error)?)
}

pub(super) async fn insert(db: &mut SqliteConnection, revocation: &Revocation) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO revocations (id, team, environment, created_at, in_force, body) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING",
    )
    .bind(revocation.id.to_string())
    .bind(revocation.team.to_string())
    .bind(&revocation.environment)
    .bind(millis(revocation.created_at))
    .bind(revocation.holds())
    .bind(json(revocation)?);
    match query.execute(db).await.map_err(store_error)?.rows_affected() {
        1 => Ok(()),
        _ => Err(taken("revocation", revocation.id)),
    }
}

pub(super) async fn update(db: &mut SqliteConnection, revocation: &Revocation) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE revocations SET in_force = $2, body = $3 WHERE id = $1")
        .bind(revocation.id.to_string())
        .bind(revocation.holds())
        .bind(json(revocation)?);
    query.execute(db).await.map_err(store_error).map(drop)
}

pub(super) async fn get(db: &mut SqliteConnection, team: TeamId, id: RevocationId) -> Result<Revocation, StoreError> {
    let query = sqlx::query("SELECT body FROM revocations WHERE id = $1 AND team = $2")
        .bind(id.to_string())
        .bind(team.to_string());
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    read(row.as_ref().ok_or_else(|| missing("revocation", id))?)
}

/// Revocations, newest first.
pub(super) async fn list(
    db: &mut SqliteConnection,
    team: Option<TeamId>,
    environment: Option<&str>,
    in_force: bool,
) -> Result<Vec<Revocation>, StoreError> {
    let query = sqlx::query(
        "SELECT body FROM revocations WHERE ($1 IS NULL OR team = $1) AND ($2 IS NULL OR environment = $2) \
         AND (in_force OR NOT $3) ORDER BY created_at DESC, id DESC",
    )
    .bind(team.map(|team| team.to_string()))
    .bind(environment)
    .bind(in_force);
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(read).collect()
}
