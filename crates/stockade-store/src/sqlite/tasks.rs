//! The tasks table.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{Task, TaskId, TeamId};
use stockade_ports::StoreError;

use super::{
    codec::{from_json, json, millis},
    error::{missing, store_error, taken},
};

fn read(row: &SqliteRow) -> Result<Task, StoreError> {
    from_json(row.try_get("body").map_err(store_error)?)
}

pub(super) async fn insert(db: &mut SqliteConnection, task: &Task) -> Result<(), StoreError> {
    let query =
        sqlx::query("INSERT INTO tasks (id, team, created_at, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
            .bind(task.id.to_string())
            .bind(task.team.to_string())
            .bind(millis(task.created_at))
            .bind(json(task)?);
    match query.execute(db).await.map_err(store_error)?.rows_affected() {
        1 => Ok(()),
        _ => Err(taken("task", task.id)),
    }
}

pub(super) async fn get(db: &mut SqliteConnection, team: TeamId, id: TaskId) -> Result<Task, StoreError> {
    let query = sqlx::query("SELECT body FROM tasks WHERE id = $1 AND team = $2")
        .bind(id.to_string())
        .bind(team.to_string());
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    read(row.as_ref().ok_or_else(|| missing("task", id))?)
}

/// Tasks of a team, newest first.
pub(super) async fn list(
    db: &mut SqliteConnection,
    team: TeamId,
    before: Option<TaskId>,
    limit: u32,
) -> Result<Vec<Task>, StoreError> {
    let before = match before {
        Some(id) => Some(get(db, team, id).await?),
        None => None,
    };
    let query = sqlx::query(
        "SELECT body FROM tasks WHERE team = $1 AND ($2 IS NULL OR (created_at, id) < ($2, $3)) \
         ORDER BY created_at DESC, id DESC LIMIT $4",
    )
    .bind(team.to_string())
    .bind(before.as_ref().map(|task| millis(task.created_at)))
    .bind(before.as_ref().map(|task| task.id.to_string()))
    .bind(i64::from(limit));
    query
        .fetch_all(db)
        .await
        .map_err(store_error)?
        .iter()
        .map(read)
        .collect()
}
