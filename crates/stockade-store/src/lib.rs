//! Store adapters: where everything Stockade knows is kept.
//!
//! [`SqliteStore`] keeps it in one file. What a transaction writes is worked out by
//! [`stockade_ports::ledger`]; this crate loads and writes rows.

#![forbid(unsafe_code)]

mod sqlite;

pub use sqlite::{SqliteOptions, SqliteStore};
