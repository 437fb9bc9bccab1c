//! Creating things once per `Idempotency-Key`.

use sqlx::{Row, SqliteConnection};
use stockade_domain::{Digest, Task, TeamId, Timestamp};
use stockade_ports::{
    CreateRun, Created, StoreError,
    ledger::{self, CreateKey},
};

use super::{
    change,
    codec::parse,
    error::{store_error, taken},
    runs, tasks,
};

/// What an earlier request with this key has made, if there was one.
pub(super) async fn replay(
    db: &mut SqliteConnection,
    team: TeamId,
    key: Option<&str>,
    request: Digest,
) -> Result<Option<Created>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    let Some(found) = find(db, team, key).await? else {
        return Ok(None);
    };
    found.check(key, request)?;
    let task = tasks::get(db, team, found.task).await?;
    let run = match found.run {
        Some(run) => Some(runs::held(db, Some(team), run).await?.run),
        None => None,
    };
    let replayed = true;
    Ok(Some(Created { task, run, replayed }))
}

async fn find(db: &mut SqliteConnection, team: TeamId, key: &str) -> Result<Option<CreateKey>, StoreError> {
    let query = sqlx::query("SELECT request, task, run FROM idempotency_keys WHERE team = $1 AND key = $2")
        .bind(team.to_string())
        .bind(key);
    let Some(row) = query.fetch_optional(db).await.map_err(store_error)? else {
        return Ok(None);
    };
    let text = |column: &str| row.try_get::<&str, _>(column).map_err(store_error);
    let run = row.try_get::<Option<&str>, _>("run").map_err(store_error)?;
    Ok(Some(CreateKey {
        request: parse(text("request")?)?,
        task: parse(text("task")?)?,
        run: run.map(parse).transpose()?,
    }))
}

/// Creates the run of a stored task where one is asked for, and remembers the key.
pub(super) async fn create(
    db: &mut SqliteConnection,
    task: Task,
    run: Option<CreateRun>,
    key: Option<String>,
    request: Digest,
    now: Timestamp,
) -> Result<Created, StoreError> {
    let run = match run {
        Some(run) if runs::exists(db, run.id).await? => return Err(taken("run", run.id)),
        Some(run) => {
            let created = ledger::create_run(&task, run, now);
            runs::insert(db, &created.held).await?;
            change::write(db, &created).await?;
            Some(created.held.run)
        }
        None => None,
    };
    if let Some(key) = key {
        let query =
            sqlx::query("INSERT INTO idempotency_keys (team, key, request, task, run) VALUES ($1, $2, $3, $4, $5)")
                .bind(task.team.to_string())
                .bind(key)
                .bind(request.to_string())
                .bind(task.id.to_string())
                .bind(run.as_ref().map(|run| run.id.to_string()));
        query.execute(db).await.map_err(store_error)?;
    }
    let replayed = false;
    Ok(Created { task, run, replayed })
}
