//! Tasks: what is asked.

use serde::{Deserialize, Serialize};
use stockade_domain::{AgentSpec, LimitsPatch, PublishPlan, RepoSpec, SnapshotPlan, TaskId, Timestamp};

use crate::v1::{NameOr, Run};

/// The repository a task is about: its source alone, or with a reference.
pub type RepoInput = NameOr<RepoSpec>;

impl NameOr<RepoSpec> {
    /// The repository, whichever way it was written.
    pub fn into_spec(self) -> RepoSpec {
        match self {
            Self::Name(source) => RepoSpec {
                source,
                reference: None,
            },
            Self::Inline(spec) => *spec,
        }
    }
}

const fn yes() -> bool {
    true
}

/// `POST /v1/tasks`. Everything about the run must be absent when `run` is false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTask {
    /// The request in words.
    pub prompt: String,
    /// The repository it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoInput>,
    /// The agent, by name or spelled out; the installation's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<NameOr<AgentSpec>>,
    /// The environment, by name; the installation's default when absent. Environments are
    /// the operator's and cannot be spelled out in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The model; the agent's or the installation's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The sandbox backend; the installation's first when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Limits laid over the agent's and the installation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// Start from a snapshot, keep one at the end, or both.
    #[serde(default, skip_serializing_if = "SnapshotPlan::is_default")]
    pub snapshot: SnapshotPlan,
    /// Push the change to a branch of the repository's server, and open a pull request if that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishPlan>,
    /// Whether to start a run at once.
    #[serde(default = "yes")]
    pub run: bool,
}

impl CreateTask {
    /// A task with a run, everything else by default.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            repo: None,
            agent: None,
            environment: None,
            model: None,
            backend: None,
            limits: None,
            snapshot: SnapshotPlan::default(),
            publish: None,
            run: true,
        }
    }
}

/// `POST /v1/tasks/{id}/runs`: another run of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateRun {
    /// The agent, by name or spelled out; the installation's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<NameOr<AgentSpec>>,
    /// The environment, by name; the installation's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The model; the agent's or the installation's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The sandbox backend; the installation's first when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Limits laid over the agent's and the installation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// Start from a snapshot, keep one at the end, or both.
    #[serde(skip_serializing_if = "SnapshotPlan::is_default")]
    pub snapshot: SnapshotPlan,
    /// Push the change to a branch of the repository's server, and open a pull request if that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishPlan>,
}

/// What a team asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The request in words.
    pub prompt: String,
    /// The repository it is about.
    pub repo: Option<RepoSpec>,
    /// When it was asked.
    pub created_at: Timestamp,
}

impl From<stockade_domain::Task> for Task {
    fn from(task: stockade_domain::Task) -> Self {
        Self {
            id: task.id,
            prompt: task.prompt,
            repo: task.repo,
            created_at: task.created_at,
        }
    }
}

/// The answer to `POST /v1/tasks` and `POST /v1/tasks/{id}/runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCreated {
    /// The task.
    pub task: Task,
    /// Its run, if one was created.
    pub run: Option<Run>,
    /// Whether an earlier request with the same `Idempotency-Key` had already created it.
    pub replayed: bool,
}
