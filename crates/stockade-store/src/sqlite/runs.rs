//! The runs table.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{Budget, Failure, Machine, Run, RunId, RunResult, RunState, TeamId, Timestamp};
use stockade_ports::{StoreError, ledger::Held};

use super::{
    change::Batch,
    codec::{from_json, json, millis, parse, signed, unsigned},
    error::{missing, store_error},
};

/// What of a run changes after it was created.
#[derive(Serialize, Deserialize)]
struct Live {
    machine: Machine,
    budget: Budget,
    result: Option<RunResult>,
    failure: Option<Failure>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    claimable_at: Option<Timestamp>,
}

impl Live {
    fn of(held: &Held) -> Self {
        let run = &held.run;
        Self {
            machine: run.machine.clone(),
            budget: run.budget,
            result: run.result.clone(),
            failure: run.failure.clone(),
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            claimable_at: held.claimable_at,
        }
    }
}

const COLUMNS: &str = "SELECT id, task, team, fence, last_seq, chain_head, spec, live FROM runs";

fn read(row: &SqliteRow) -> Result<Held, StoreError> {
    let text = |column: &str| row.try_get::<&str, _>(column).map_err(store_error);
    let number = |column: &str| row.try_get::<i64, _>(column).map_err(store_error).and_then(unsigned);
    let live: Live = from_json(text("live")?)?;
    let run = Run {
        id: parse(text("id")?)?,
        task: parse(text("task")?)?,
        team: parse(text("team")?)?,
        spec: from_json(text("spec")?)?,
        machine: live.machine,
        budget: live.budget,
        result: live.result,
        failure: live.failure,
        created_at: live.created_at,
        started_at: live.started_at,
        ended_at: live.ended_at,
        last_seq: number("last_seq")?,
        chain_head: parse(text("chain_head")?)?,
    };
    Ok(Held {
        run,
        fence: number("fence")?,
        claimable_at: live.claimable_at,
    })
}

pub(super) async fn exists(db: &mut SqliteConnection, id: RunId) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT 1 FROM runs WHERE id = $1").bind(id.to_string());
    Ok(found.fetch_optional(db).await.map_err(store_error)?.is_some())
}

/// A run, of a team where one is named.
pub(super) async fn held(db: &mut SqliteConnection, team: Option<TeamId>, id: RunId) -> Result<Held, StoreError> {
    let query = sqlx::query(AssertSqlSafe(format!("{COLUMNS} WHERE id = $1"))).bind(id.to_string());
    let row = query.fetch_optional(db).await.map_err(store_error)?;
    let held = row.as_ref().map(read).transpose()?;
    let held = held.filter(|held| team.is_none_or(|team| held.run.team == team));
    held.ok_or_else(|| missing("run", id))
}

/// The oldest run a worker may take now.
pub(super) async fn oldest_claimable(db: &mut SqliteConnection, now: Timestamp) -> Result<Option<Held>, StoreError> {
    let sql =
        format!("{COLUMNS} WHERE claimable_at IS NOT NULL AND claimable_at <= $1 ORDER BY created_at, id LIMIT 1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(millis(now));
    query
        .fetch_optional(db)
        .await
        .map_err(store_error)?
        .as_ref()
        .map(read)
        .transpose()
}

/// Runs, newest first.
pub(super) async fn list(
    db: &mut SqliteConnection,
    team: Option<TeamId>,
    states: &[RunState],
    before: Option<RunId>,
    limit: u32,
) -> Result<Vec<Run>, StoreError> {
    let before = match before {
        Some(id) => Some(held(db, team, id).await?.run),
        None => None,
    };
    // The states are words of this program, so they may stand in the statement.
    let words: Vec<_> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    let any = if words.is_empty() {
        "1 = 1".to_owned()
    } else {
        format!("state IN ({})", words.join(", "))
    };
    let sql = format!(
        "{COLUMNS} WHERE {any} AND ($1 IS NULL OR team = $1) AND ($2 IS NULL OR (created_at, id) < ($2, $3)) \
         ORDER BY created_at DESC, id DESC LIMIT $4"
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(team.map(|team| team.to_string()))
        .bind(before.as_ref().map(|run| millis(run.created_at)))
        .bind(before.as_ref().map(|run| run.id.to_string()))
        .bind(i64::from(limit));
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| Ok(read(row)?.run)).collect()
}

pub(super) async fn insert(db: &mut SqliteConnection, held: &Held) -> Result<(), StoreError> {
    let run = &held.run;
    let query = sqlx::query(
        "INSERT INTO runs (id, task, team, state, created_at, claimable_at, fence, last_seq, chain_head, spec, live) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(run.id.to_string())
    .bind(run.task.to_string())
    .bind(run.team.to_string())
    .bind(run.state().as_str())
    .bind(millis(run.created_at))
    .bind(held.claimable_at.map(millis))
    .bind(signed(held.fence)?)
    .bind(signed(run.last_seq)?)
    .bind(run.chain_head.to_string())
    .bind(json(&run.spec)?)
    .bind(json(&Live::of(held))?);
    query.execute(db).await.map_err(store_error).map(drop)
}

pub(super) fn update(batch: &mut Batch, held: &Held) -> Result<(), StoreError> {
    let run = &held.run;
    batch
        .say("UPDATE runs SET state = ")
        .value(run.state().as_str().to_owned());
    batch.say(", claimable_at = ").value(held.claimable_at.map(millis));
    batch.say(", fence = ").value(signed(held.fence)?);
    batch.say(", last_seq = ").value(signed(run.last_seq)?);
    batch.say(", chain_head = ").value(run.chain_head.to_string());
    batch.say(", live = ").value(json(&Live::of(held))?);
    batch.say(" WHERE id = ").value(run.id.to_string()).say(";\n");
    Ok(())
}
