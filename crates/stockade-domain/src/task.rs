//! Tasks: what is asked.

use serde::{Deserialize, Serialize};

use crate::{RepoSpec, TaskId, TeamId, Timestamp};

/// What a team asked for. A task may have many runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The tenant it belongs to.
    pub team: TeamId,
    /// The request in words.
    pub prompt: String,
    /// The repository it is about, if any.
    pub repo: Option<RepoSpec>,
    /// When it was asked.
    pub created_at: Timestamp,
}
