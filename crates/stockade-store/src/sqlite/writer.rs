//! The one writer: changes that come at the same time share a commit.
//!
//! A commit waits for the disk, and that is most of what a change costs. Whatever has queued up
//! while one commit was under way is done in the next transaction together, each change in a
//! savepoint of its own, and nobody hears of a change before the commit that has it.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin};

use futures::FutureExt as _;
use sqlx::{SqliteConnection, SqlitePool};
use stockade_ports::StoreError;
use tokio::sync::{mpsc, oneshot};

use super::error::store_error;

/// Changes in one transaction at most; the first of them waits for the last.
const MOST: usize = 128;
/// Changes in the queue; whoever comes later waits for a place.
const QUEUE: usize = 1024;

/// What a change is while it is under way.
pub(super) type Doing<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;
/// Tells whoever asked how the commit went.
type Tell = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A change somebody waits for, whatever it gives them.
trait Job: Send {
    /// Whether anybody still waits.
    fn is_wanted(&self) -> bool;

    /// Gives it up undone.
    fn refuse(self: Box<Self>) -> Tell;

    /// Does it; whether what it wrote is to be kept.
    fn run<'c>(self: Box<Self>, db: &'c mut SqliteConnection) -> Doing<'c, (bool, Tell)>;
}

struct Change<T, F> {
    change: F,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Change<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Doing<'c, Result<T, StoreError>> + Send + 'static,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn refuse(self: Box<Self>) -> Tell {
        Box::new(move |why| {
            let error = why.err().unwrap_or_else(gone);
            let _ = self.reply.send(Err(error));
        })
    }

    fn run<'c>(self: Box<Self>, db: &'c mut SqliteConnection) -> Doing<'c, (bool, Tell)> {
        let Self { change, reply } = *self;
        Box::pin(async move {
            let done = change(db).await;
            let keep = done.is_ok();
            let tell: Tell = Box::new(move |committed| {
                // Who does not listen any more needs no answer.
                let _ = reply.send(done.and_then(|value| committed.map(|()| value)));
            });
            (keep, tell)
        })
    }
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Box<dyn Job>>);

impl Writer {
    /// Starts it over the connection that it alone uses.
    pub(super) fn start(pool: SqlitePool) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(serve(pool, jobs));
        Self(queue)
    }

    /// Does a change and waits until it is on the disk. An error undoes all of it. One whose
    /// caller has gone before its turn is not done.
    pub(super) async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Doing<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Change { change, reply });
        self.0.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The same error for everybody whose change went with the transaction.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(why) => StoreError::Corrupt(why.clone()),
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

fn panicked() -> StoreError {
    StoreError::Unavailable("a change panicked, and those beside it were undone".to_owned())
}

fn gone() -> StoreError {
    StoreError::Unavailable("its writer has ended".to_owned())
}

async fn serve(pool: SqlitePool, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = jobs.recv().await {
        let mut told = Vec::new();
        // A change that panics loses its transaction, not the writer.
        let done = AssertUnwindSafe(together(&pool, first, &mut jobs, &mut told));
        let committed = done.catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
        for tell in told {
            tell(committed.as_ref().map_err(again).copied());
        }
    }
}

/// Does a change and those that wait behind it, and commits them. Whom to tell of it is in `told`.
async fn together(
    pool: &SqlitePool,
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    told: &mut Vec<Tell>,
) -> Result<(), StoreError> {
    let mut tx = match pool.begin_with("BEGIN IMMEDIATE").await {
        Ok(tx) => tx,
        Err(error) => {
            told.push(first.refuse());
            return Err(store_error(error));
        }
    };
    let mut next = Some(first);
    while let Some(job) = next {
        if job.is_wanted() {
            apart(&mut tx, job, told).await?;
        }
        next = (told.len() < MOST).then(|| jobs.try_recv().ok()).flatten();
    }
    tx.commit().await.map_err(store_error)
}

/// One change, whose error undoes nobody else's.
///
/// # Errors
///
/// When that cannot be promised: the transaction is lost, for example because the disk is full.
async fn apart(tx: &mut SqliteConnection, job: Box<dyn Job>, told: &mut Vec<Tell>) -> Result<(), StoreError> {
    say(tx, "SAVEPOINT change").await?;
    let (keep, tell) = job.run(tx).await;
    told.push(tell);
    if !keep {
        say(tx, "ROLLBACK TO change").await?;
    }
    say(tx, "RELEASE change").await
}

async fn say(tx: &mut SqliteConnection, words: &'static str) -> Result<(), StoreError> {
    sqlx::query(words).execute(tx).await.map_err(store_error).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::SqliteStore;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_panics_is_undone_and_the_writer_goes_on() {
        let place = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(place.path().join("stockade.db"))
            .await
            .expect("a store");
        let insert = "INSERT INTO tasks (id, team, created_at, body) VALUES ('a', 'b', 1, 'c')";
        let panics = store.queue.change::<(), _>(move |db| {
            Box::pin(async move {
                say(db, insert).await?;
                panic!("on purpose")
            })
        });
        assert!(matches!(panics.await, Err(StoreError::Unavailable(_))));
        // The same row again: it would not go in beside the first.
        let again = store
            .queue
            .change(move |db| Box::pin(async move { say(db, insert).await }));
        let again = tokio::time::timeout(Duration::from_secs(10), again).await;
        again
            .expect("the writer is there")
            .expect("nothing of the first was kept");
    }
}
