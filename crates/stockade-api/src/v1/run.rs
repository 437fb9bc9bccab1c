//! Runs: one attempt at a task.

use serde::{Deserialize, Serialize};
use stockade_domain::{Amounts, ApprovalId, Digest, Failure, RunId, RunResult, RunSpec, RunState, TaskId, Timestamp};

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// Where it stands.
    pub state: RunState,
    /// How often a worker has taken it; 0 before the first time.
    pub attempt: u32,
    /// Whether somebody has asked to end it and it has not ended yet.
    pub cancelling: bool,
    /// Approvals it waits for.
    pub open_approvals: Vec<ApprovalId>,
    /// What it was created with: prompt, agent, environment, model, limits.
    pub spec: RunSpec,
    /// What it has spent.
    pub used: Amounts,
    /// What actions in flight hold of its budget.
    pub reserved: Amounts,
    /// What it produced, once completed.
    pub result: Option<RunResult>,
    /// Why it failed, once failed.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a worker first took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The last event's place.
    pub last_seq: u64,
    /// The head of the event chain.
    pub chain_head: Digest,
}

impl From<stockade_domain::Run> for Run {
    fn from(run: stockade_domain::Run) -> Self {
        Self {
            id: run.id,
            task: run.task,
            state: run.machine.state,
            attempt: run.machine.attempt,
            cancelling: run.machine.cancelling.is_some(),
            open_approvals: run.machine.open,
            spec: run.spec,
            used: run.budget.used,
            reserved: run.budget.reserved,
            result: run.result,
            failure: run.failure,
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            last_seq: run.last_seq,
            chain_head: run.chain_head,
        }
    }
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// Where it stands.
    pub state: RunState,
    /// The first line of the prompt, at most 120 characters.
    pub title: String,
    /// The repository's source.
    pub repo: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// The environment's name.
    pub environment: String,
    /// The model.
    pub model: String,
    /// The sandbox backend.
    pub backend: String,
    /// Approvals it waits for.
    pub open_approvals: Vec<ApprovalId>,
    /// Files it changed; absent until it completed.
    pub files_changed: Option<usize>,
    /// The code of its failure, once failed.
    pub failure: Option<String>,
    /// What it has spent.
    pub used: Amounts,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl From<stockade_domain::Run> for RunSummary {
    fn from(run: stockade_domain::Run) -> Self {
        Self {
            id: run.id,
            task: run.task,
            state: run.machine.state,
            title: title_of(&run.spec.prompt),
            repo: run.spec.repo.map(|repo| repo.source),
            agent: run.spec.agent.name,
            environment: run.spec.environment.name,
            model: run.spec.model,
            backend: run.spec.backend,
            open_approvals: run.machine.open,
            files_changed: run.result.map(|result| result.files.len()),
            failure: run.failure.map(|failure| failure.code),
            used: run.budget.used,
            created_at: run.created_at,
            ended_at: run.ended_at,
        }
    }
}

/// The first line with words in it, cut at 120 characters.
fn title_of(prompt: &str) -> String {
    let line = prompt.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("");
    let mut title: String = line.chars().take(120).collect();
    if title.len() < line.len() {
        title.pop();
        title.push('…');
    }
    title
}

/// `POST /v1/runs/{id}/cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CancelRun {
    /// Why; stands in the events and the receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /v1/runs/{id}/messages`: something to say to the agent while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// The words.
    pub text: String,
    /// Whether it interrupts the current turn instead of waiting for its end.
    #[serde(default)]
    pub steer: bool,
}

/// A message a run was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Place in the run's messages: 1, 2, 3 …
    pub seq: u64,
    /// Who said it.
    pub by: String,
    /// The words.
    pub text: String,
    /// Whether it interrupts the current turn.
    pub steer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_one_short_line() {
        assert_eq!(title_of("\n  Fix the test \nand more"), "Fix the test");
        assert_eq!(title_of(""), "");
        let long = title_of(&"ü".repeat(500));
        assert_eq!((long.chars().count(), long.chars().last()), (120, Some('…')));
    }
}
