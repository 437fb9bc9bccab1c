//! Writing what the ledger worked out.

use sqlx::{Encode, QueryBuilder, Sqlite, SqliteConnection, Type};
use stockade_ports::{StoreError, ledger::Change};

use super::{actions, approvals, error::store_error, events, messages, runs};

/// Statements that go to SQLite in one piece: the way there costs more than most of them.
pub(super) struct Batch(QueryBuilder<Sqlite>);

impl Batch {
    fn new() -> Self {
        Self(QueryBuilder::new(""))
    }

    /// Adds words.
    pub(super) fn say(&mut self, words: &'static str) -> &mut Self {
        self.0.push(words);
        self
    }

    /// Adds a value.
    pub(super) fn value<T>(&mut self, value: T) -> &mut Self
    where
        T: for<'t> Encode<'t, Sqlite> + Type<Sqlite> + 'static,
    {
        self.0.push_bind(value);
        self
    }

    /// Adds values with commas between them.
    pub(super) fn values<T>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self
    where
        T: for<'t> Encode<'t, Sqlite> + Type<Sqlite> + 'static,
    {
        for (n, value) in values.into_iter().enumerate() {
            if n > 0 {
                self.0.push(", ");
            }
            self.0.push_bind(value);
        }
        self
    }
}

/// Writes a change of a run that is stored already. The caller commits, or undoes all of it.
pub(super) async fn write(db: &mut SqliteConnection, change: &Change) -> Result<(), StoreError> {
    let (run, mut batch) = (change.run(), Batch::new());
    runs::update(&mut batch, &change.held)?;
    for event in &change.events {
        events::insert(&mut batch, event)?;
    }
    for row in &change.actions {
        actions::put(&mut batch, run, row)?;
    }
    for approval in &change.approvals {
        approvals::put(&mut batch, change.held.run.team, approval)?;
    }
    if let Some(message) = &change.message {
        messages::insert(&mut batch, run, message)?;
    }
    batch.0.build().execute(db).await.map_err(store_error).map(drop)
}
