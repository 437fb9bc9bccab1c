//! The ledger: what one transaction of a store writes, worked out without a store.
//!
//! A store loads rows, calls one function of this module, and writes the [`Change`] it
//! returns, all in one transaction. So every store appends the same events in the same
//! order, chains them alike, and refuses alike; what is left to an adapter is to load and
//! to write.

mod action;
mod approval;
mod change;
mod key;
mod run;

pub use action::{Asked, admit, settle};
pub use approval::{decide, expire};
pub use change::{ActionRow, Change, Held};
pub use key::{CreateKey, run_key, task_key};
pub use run::{OpenWork, append, begin_turn, claim, create_run, say, step};
