//! Runs: one attempt at a task, frozen when it is created, immutable once terminal.

use serde::{Deserialize, Serialize};

use crate::{
    AgentSpec, Budget, BudgetLimits, Digest, Environment, Failure, GitHost, LimitsPatch, Machine, Publication,
    PublishPlan, RunId, RunState, TaskId, TeamId, Timestamp,
};

/// The repository a task is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoSpec {
    /// A path on the runner's host, or a URL git understands.
    pub source: String,
    /// The branch, tag or commit to start from; the default branch when absent.
    #[serde(default)]
    pub reference: Option<String>,
}

/// Everything that bounds a run, all set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Caps on tokens, cost, model requests and turns.
    pub budget: BudgetLimits,
    /// Seconds from the start of the run to its forced end.
    pub wall_clock_seconds: u64,
    /// Seconds without any sign of life from the agent.
    pub inactivity_seconds: u64,
    /// The same tool with the same input so often asks a person; at least 2.
    pub repeat_limit: u32,
    /// Seconds an approval stays open before it counts as denied.
    pub approval_timeout_seconds: u64,
    /// How often provisioning is tried.
    pub max_attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: BudgetLimits {
                tokens: Some(4_000_000),
                cost_micro_usd: Some(10_000_000),
                model_requests: Some(300),
                turns: Some(100),
            },
            wall_clock_seconds: 3600,
            inactivity_seconds: 600,
            repeat_limit: 3,
            approval_timeout_seconds: 3600,
            max_attempts: 3,
        }
    }
}

impl Limits {
    /// Lays a patch over these limits.
    #[must_use]
    pub fn patched(self, patch: &LimitsPatch) -> Self {
        Self {
            budget: BudgetLimits {
                tokens: patch.budget.tokens.or(self.budget.tokens),
                cost_micro_usd: patch.budget.cost_micro_usd.or(self.budget.cost_micro_usd),
                model_requests: patch.budget.model_requests.or(self.budget.model_requests),
                turns: patch.budget.turns.or(self.budget.turns),
            },
            wall_clock_seconds: patch.wall_clock_seconds.unwrap_or(self.wall_clock_seconds),
            inactivity_seconds: patch.inactivity_seconds.unwrap_or(self.inactivity_seconds),
            repeat_limit: patch.repeat_limit.unwrap_or(self.repeat_limit).max(2),
            approval_timeout_seconds: patch.approval_timeout_seconds.unwrap_or(self.approval_timeout_seconds),
            max_attempts: self.max_attempts,
        }
    }
}

/// What happens to the sandbox's writable layer before and after a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotPlan {
    /// Digest (`sha256:…`) of the snapshot the sandbox starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Keep the layer when the agent is done.
    pub keep: bool,
}

impl SnapshotPlan {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run was created with. Frozen: later edits of an agent or environment do not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The request in words.
    pub prompt: String,
    /// The repository, if any.
    pub repo: Option<RepoSpec>,
    /// The agent as it was.
    pub agent: AgentSpec,
    /// The environment as it was, its level's domain list resolved.
    pub environment: Environment,
    /// The model that will be asked for.
    pub model: String,
    /// The sandbox backend.
    pub backend: String,
    /// What happens to the sandbox's writable layer before and after.
    #[serde(default, skip_serializing_if = "SnapshotPlan::is_default")]
    pub snapshot: SnapshotPlan,
    /// The git server that the repository is at, where the installation has named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_host: Option<GitHost>,
    /// What becomes of the change outside; without it, it is only kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishPlan>,
    /// The limits.
    pub limits: Limits,
    /// Digest of the compiled policy; an approval made under another one is void.
    pub policy_version: Digest,
}

/// A file a run changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Path in the repository.
    pub path: String,
    /// `added`, `modified`, `deleted` or `renamed`.
    pub change: String,
    /// Lines added; absent for binary files.
    pub added: Option<u64>,
    /// Lines removed; absent for binary files.
    pub removed: Option<u64>,
}

/// What a completed run produced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// The agent's last words.
    pub summary: String,
    /// Changed files, by path.
    #[serde(default)]
    pub files: Vec<FileChange>,
    /// The commit the run started from.
    #[serde(default)]
    pub base_commit: Option<String>,
    /// The commit of the exported change.
    #[serde(default)]
    pub commit: Option<String>,
    /// The branch that holds it in the exported change.
    #[serde(default)]
    pub branch: Option<String>,
    /// Digest of the patch.
    #[serde(default)]
    pub patch_digest: Option<Digest>,
    /// Limits of the sandbox and of its traffic that the run met on its way, for example `pids=64`
    /// or `env.traffic.bytes_up=1048576`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits_hit: Vec<String>,
    /// What became of the change outside, where that was asked for and there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Box<Publication>>,
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// The tenant.
    pub team: TeamId,
    /// What it was created with.
    pub spec: RunSpec,
    /// Where it stands.
    pub machine: Machine,
    /// Its budget.
    pub budget: Budget,
    /// What it produced, once completed.
    pub result: Option<RunResult>,
    /// Why it failed, once failed.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a worker first took it.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub ended_at: Option<Timestamp>,
    /// The last event's place.
    pub last_seq: u64,
    /// The head of the event chain.
    pub chain_head: Digest,
}

impl Run {
    /// The state, for short.
    pub fn state(&self) -> RunState {
        self.machine.state
    }
}
