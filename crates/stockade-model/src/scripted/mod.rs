//! A model that says what a file tells it to, on all three wires.
//!
//! For tests, demos and harness work: real clients run through it unchanged. The format of
//! the file and how turns are chosen stand in `docs/scripted-models.md`.

mod answer;
mod anthropic;
mod chat;
mod conversation;
mod file;
mod next;
mod provider;
mod responses;
mod structured;
mod tools;

pub use file::{Call, ErrorStatus, ErrorTurn, Guard, Script, ScriptError, Turn, TurnUsage};
pub use provider::ScriptedProvider;
