//! SQLite: one file, one writer, many readers.
//!
//! The write-ahead log lets readers go on while the one writer commits, and
//! `synchronous=FULL` makes every commit wait for the disk, so that what was acknowledged
//! survives a power loss. There is one writer connection and every write begins with
//! `BEGIN IMMEDIATE`: a transaction has the write lock before it reads, so it never finds
//! out halfway that somebody else wrote first. Changes that come together share a commit.

mod actions;
mod approvals;
mod artifacts;
mod change;
mod codec;
mod error;
mod events;
mod keys;
mod messages;
mod runs;
mod secrets;
mod store;
mod tasks;
mod tokens;
mod writer;

use std::{
    fs::{File, OpenOptions},
    path::Path,
    time::Duration,
};

use sqlx::{
    Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrator,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stockade_ports::StoreError;

use error::store_error;
use writer::{Doing, Writer};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a write waits for another process that writes the same file.
const BUSY: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(30);

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Connections for reading, at least 1.
    pub readers: u32,
    /// The largest size of the database file in pages of 4096 bytes; a write that needs
    /// more fails as on a full disk. `None`: as large as the disk.
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            max_pages: None,
        }
    }
}

/// Keeps everything in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    queue: Writer,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens a store, makes the file if there is none (readable by its owner only, for it
    /// holds prompts and code), and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the file cannot be opened, [`StoreError::Corrupt`]
    /// when it is no database or was written by a newer Stockade.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// Opens a store with options; see [`Self::open`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let named = |error: StoreError| at(path, error);
        let _alone = alone_with(path)
            .await
            .map_err(|e| named(StoreError::Unavailable(e.to_string())))?;
        make_private(path).map_err(|e| named(StoreError::Unavailable(e.to_string())))?;
        let mut connect = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        if let Some(pages) = options.max_pages {
            connect = connect.pragma("max_page_count", pages.to_string());
        }
        let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE);
        let writer = pool().max_connections(1).connect_with(connect.clone()).await;
        let writer = writer.map_err(|e| named(store_error(e)))?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|e| named(error::migration_error(e)))?;
        let connect = connect.pragma("query_only", "ON");
        let readers = pool()
            .max_connections(options.readers.max(1))
            .connect_with(connect)
            .await;
        let readers = readers.map_err(|e| named(store_error(e)))?;
        let queue = Writer::start(writer.clone());
        Ok(Self { writer, queue, readers })
    }

    /// Closes the file after the work in hand. Every later call fails as
    /// [`StoreError::Unavailable`], in all clones.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// One transaction, or a part of one that stands and falls by itself.
    async fn change<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Doing<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.queue.change(change).await
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }
}

/// Keeps other processes from opening the same store at the same moment: neither turning on
/// the write-ahead log nor making the first tables waits for somebody who does the same.
/// The lock is on the directory, so no file of its own is left behind.
async fn alone_with(path: &Path) -> std::io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = parent.unwrap_or(Path::new(".")).to_owned();
    let lock = move || {
        let directory = File::open(place)?;
        directory.lock()?;
        Ok(directory)
    };
    tokio::task::spawn_blocking(lock).await.map_err(std::io::Error::other)?
}

/// SQLite gives the log and the shared memory file the mode of the database file.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn at(path: &Path, error: StoreError) -> StoreError {
    let path = path.display();
    match error {
        StoreError::Corrupt(why) => StoreError::Corrupt(format!("{path}: {why}")),
        StoreError::Unavailable(why) => StoreError::Unavailable(format!("{path}: {why}")),
        other => other,
    }
}
