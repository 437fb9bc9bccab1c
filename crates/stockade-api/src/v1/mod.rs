//! Version 1 of the HTTP bodies.
//!
//! Types of the domain that appear here ([`AgentSpec`](stockade_domain::AgentSpec),
//! [`Environment`](stockade_domain::Environment), [`Event`](stockade_domain::Event),
//! [`Approval`](stockade_domain::Approval), [`Limits`](stockade_domain::Limits) …) are part
//! of this version: a change that breaks them is a new version. What answers never tell is
//! the tenant; a token speaks for one team and sees nothing else.

mod about;
mod approval;
mod artifact;
mod catalog;
mod name_or;
mod page;
mod revocation;
mod run;
mod secret;
mod task;
mod token;

pub use about::{About, Health};
pub use approval::DecideApproval;
pub use artifact::{ARTIFACTS, Artifact, ArtifactKind, artifact_kind};
pub use catalog::{AgentItem, EnvironmentItem};
pub use name_or::NameOr;
pub use page::Page;
pub use revocation::{CreateRevocation, Revocation};
pub use run::{CancelRun, Message, Run, RunSummary, SendMessage};
pub use secret::Secret;
pub use task::{CreateRun, CreateTask, RepoInput, Task, TaskCreated};
pub use token::{CreateToken, Token, TokenCreated, TokenSecret};

/// The type of every problem's body (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The type of a receipt's body (DSSE).
pub const RECEIPT_JSON: &str = "application/vnd.dsse+json";
/// The type of a secret's value on its way in.
pub const OCTETS: &str = "application/octet-stream";
/// The type of a diff's body.
pub const PATCH: &str = "text/x-patch";
/// The type of an event stream (WHATWG HTML).
pub const EVENT_STREAM: &str = "text/event-stream";
