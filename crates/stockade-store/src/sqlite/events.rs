//! The events table: the truth about every run.

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use stockade_domain::{Event, EventType, NewEvent, RunId};
use stockade_ports::StoreError;

use super::{
    change::Batch,
    codec::{from_json, json, parse, place, signed, unsigned},
    error::store_error,
};

pub(super) fn insert(batch: &mut Batch, event: &Event) -> Result<(), StoreError> {
    batch.say("INSERT INTO events (run, seq, time, kind, trace, data) VALUES (");
    batch
        .value(event.run.to_string())
        .say(", ")
        .value(signed(event.seq)?)
        .say(", ");
    batch
        .values([event.time.to_string(), event.kind.as_str().to_owned()])
        .say(", ");
    batch
        .value(event.trace.clone())
        .say(", ")
        .value(json(&event.data)?)
        .say(");\n");
    Ok(())
}

pub(super) async fn list(
    db: &mut SqliteConnection,
    run: RunId,
    after: u64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let query = sqlx::query(
        "SELECT seq, time, kind, trace, data FROM events WHERE run = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(run.to_string())
    .bind(place(after))
    .bind(i64::from(limit));
    let rows = query.fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| read(run, row)).collect()
}

fn read(run: RunId, row: &SqliteRow) -> Result<Event, StoreError> {
    let text = |column: &str| row.try_get::<&str, _>(column).map_err(store_error);
    let new = NewEvent::new(kind(text("kind")?)?, from_json(text("data")?)?);
    let seq = unsigned(row.try_get("seq").map_err(store_error)?)?;
    let trace = row.try_get::<Option<String>, _>("trace").map_err(store_error)?;
    Ok(Event::place(new, run, seq, parse(text("time")?)?, trace))
}

fn kind(word: &str) -> Result<EventType, StoreError> {
    let known = EventType::ALL.iter().find(|kind| kind.as_str() == word);
    known
        .copied()
        .ok_or_else(|| StoreError::Corrupt(format!("'{word}' is no type of event")))
}
