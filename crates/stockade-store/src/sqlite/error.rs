//! What SQLite's errors mean to somebody who asked a store.

use sqlx::migrate::MigrateError;
use stockade_ports::StoreError;

/// Primary result codes (sqlite.org/rescode.html) that say the file itself is wrong.
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_CONSTRAINT: i64 = 19;
const SQLITE_NOTADB: i64 = 26;

/// Everything that is not known to be damage is "no answer": the caller fails closed either way.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i64>().ok());
            // The low byte is the primary code, the rest refines it.
            match code.map(|code| code & 0xff) {
                Some(SQLITE_CORRUPT | SQLITE_CONSTRAINT | SQLITE_NOTADB) => StoreError::Corrupt(error.to_string()),
                _ => StoreError::Unavailable(error.to_string()),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

pub(super) fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) => store_error(error),
        MigrateError::VersionMissing(version) => StoreError::Corrupt(format!(
            "it was written by a newer Stockade (its table version {version} is unknown here); use that one"
        )),
        other => StoreError::Corrupt(other.to_string()),
    }
}

pub(super) fn missing(what: &'static str, id: impl ToString) -> StoreError {
    let id = id.to_string();
    StoreError::NotFound { what, id }
}

pub(super) fn taken(what: &str, id: impl ToString) -> StoreError {
    StoreError::Corrupt(format!("{what} {} exists already", id.to_string()))
}
