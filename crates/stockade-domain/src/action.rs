//! Actions: everything that wants to leave a sandbox.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ActionId, Amounts, ApprovalId, Digest, RunId, Timestamp, digest_of};

/// What kind of effect an action asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// A tool of the built-in loop, or an MCP tool.
    Tool,
    /// A connection or an HTTP request.
    Egress,
    /// A call to a language model.
    Model,
    /// A secret used on the agent's behalf.
    Credential,
    /// Files, commits or pull requests leaving the sandbox.
    Export,
    /// A harness asks over the Agent Client Protocol.
    Permission,
}

impl ActionKind {
    /// The kind as events and rules spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Egress => "egress",
            Self::Model => "model",
            Self::Credential => "credential",
            Self::Export => "export",
            Self::Permission => "permission",
        }
    }
}

/// One thing that wants to leave a sandbox.
///
/// Two actions are the same action when their digests are equal; an approval is bound to
/// that digest, so nothing that differs between two identical attempts (ids, times)
/// belongs in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What kind of effect.
    pub kind: ActionKind,
    /// The verb: a tool's name, `connect`, `resolve`, `messages`, `diff` …
    pub operation: String,
    /// The object in words: a path, `host:port`, a model name, a command line.
    pub target: String,
    /// Everything the effect depends on.
    #[serde(default)]
    pub args: Value,
}

impl Action {
    /// Digest over the canonical JSON of the exact action.
    pub fn digest(&self) -> Digest {
        digest_of(self)
    }

    /// The action with other arguments, as a person edited it.
    pub fn with_args(&self, args: Value) -> Self {
        Self { args, ..self.clone() }
    }
}

/// What the policy alone says, before approvals, budgets and loops are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVerdict {
    /// Allow, hold or deny.
    pub verdict: Verdict,
    /// The rule that decided, by its id.
    pub rule: String,
    /// Why, in a sentence a reviewer reads.
    pub reason: String,
}

/// What the gate says to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The effect may happen, once.
    Allow,
    /// A person must decide first.
    Hold,
    /// The effect does not happen.
    Deny,
    /// The effect does not happen and the run needs a person: a loop.
    Stop,
}

/// How an admitted action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It happened.
    Done,
    /// It was tried and failed.
    Failed {
        /// Why.
        error: String,
    },
    /// The process died between admitting and settling: nobody knows.
    Unknown,
}

/// An action with everything the gate recorded about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Its id.
    pub id: ActionId,
    /// The run it belongs to.
    pub run: RunId,
    /// The attempt of the run that asked.
    pub attempt: u32,
    /// The exact action.
    pub action: Action,
    /// Its digest.
    pub digest: Digest,
    /// The gate's answer.
    pub verdict: Verdict,
    /// The rule behind the answer.
    pub rule: String,
    /// The reason behind the answer.
    pub reason: String,
    /// The approval that admitted it or that it waits for.
    pub approval: Option<ApprovalId>,
    /// What was reserved from the budget.
    pub reserved: Amounts,
    /// How it ended; absent while in flight and for actions never admitted.
    pub outcome: Option<Outcome>,
    /// What it really cost.
    pub spent: Amounts,
    /// When the gate answered.
    pub asked_at: Timestamp,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
}

impl ActionRecord {
    /// Whether the effect may be happening right now.
    pub fn in_flight(&self) -> bool {
        self.verdict == Verdict::Allow && self.outcome.is_none()
    }
}
