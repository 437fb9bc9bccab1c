//! Approvals: a question to a person about one exact action, answered once, used once.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Action, ActionId, ActionKind, ApprovalId, Digest, RunId, Timestamp};

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has answered yet.
    Pending,
    /// A person said yes; not used yet unless `used_at` says so.
    Approved,
    /// A person said no.
    Rejected,
    /// Nobody answered in time; counts as no.
    Expired,
    /// The run ended before an answer.
    Cancelled,
}

impl ApprovalState {
    /// The state as the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

/// A decision with who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalDecision {
    /// Yes or no.
    pub decision: Decision,
    /// Who, as authenticated.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Other arguments for the action; only with a yes.
    pub edited_args: Option<Value>,
}

/// Why a decision was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// Somebody or something answered first.
    #[error("approval {id} is already {}", state.as_str())]
    Closed {
        /// The approval.
        id: ApprovalId,
        /// Where it stands.
        state: ApprovalState,
    },
    /// Arguments were edited where that cannot be honoured.
    #[error("the arguments of this action cannot be edited: {0}")]
    NotEditable(&'static str),
}

/// A question to a person about one exact action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The run that waits.
    pub run: RunId,
    /// The action that waits.
    pub action_id: ActionId,
    /// The exact action that was asked.
    pub action: Action,
    /// Its digest: what was approved is what executes.
    pub digest: Digest,
    /// The policy that asked; another policy needs another approval.
    pub policy_version: Digest,
    /// The rule that asked.
    pub rule: String,
    /// Why it asked.
    pub reason: String,
    /// Whether it was asked because the agent repeats itself.
    pub repetition: bool,
    /// Where it stands.
    pub state: ApprovalState,
    /// When it was asked.
    pub requested_at: Timestamp,
    /// When silence becomes a no, and after which a yes can no longer be used.
    pub expires_at: Timestamp,
    /// When it was answered.
    pub decided_at: Option<Timestamp>,
    /// Who answered.
    pub decided_by: Option<String>,
    /// Why, in their words.
    pub decision_reason: Option<String>,
    /// The action as edited by the person who approved it.
    pub edited: Option<Action>,
    /// When the answer was used; it is used once.
    pub used_at: Option<Timestamp>,
}

impl Approval {
    /// Answers the question.
    ///
    /// # Errors
    ///
    /// [`DecisionError::Closed`] when it is not pending or its time has passed.
    pub fn decide(&self, decision: ApprovalDecision, now: Timestamp) -> Result<Self, DecisionError> {
        if self.state != ApprovalState::Pending {
            return Err(DecisionError::Closed {
                id: self.id,
                state: self.state,
            });
        }
        if now >= self.expires_at {
            return Err(DecisionError::Closed {
                id: self.id,
                state: ApprovalState::Expired,
            });
        }
        if decision.edited_args.is_some() {
            if decision.decision == Decision::Reject {
                return Err(DecisionError::NotEditable("it is being rejected"));
            }
            if self.action.kind != ActionKind::Tool {
                return Err(DecisionError::NotEditable(
                    "only tools of the built-in loop can run with edited arguments",
                ));
            }
        }
        Ok(Self {
            state: match decision.decision {
                Decision::Approve => ApprovalState::Approved,
                Decision::Reject => ApprovalState::Rejected,
            },
            decided_at: Some(now),
            decided_by: Some(decision.by),
            decision_reason: decision.reason,
            edited: decision.edited_args.map(|args| self.action.with_args(args)),
            ..self.clone()
        })
    }

    /// Closes a pending approval whose time has passed; `None` when there is nothing to close.
    pub fn expire(&self, now: Timestamp) -> Option<Self> {
        let due = self.state == ApprovalState::Pending && now >= self.expires_at;
        due.then(|| Self {
            state: ApprovalState::Expired,
            decided_at: Some(now),
            ..self.clone()
        })
    }

    /// Closes a pending approval because its run ended.
    pub fn cancel(&self, now: Timestamp) -> Option<Self> {
        (self.state == ApprovalState::Pending).then(|| Self {
            state: ApprovalState::Cancelled,
            decided_at: Some(now),
            ..self.clone()
        })
    }
}
