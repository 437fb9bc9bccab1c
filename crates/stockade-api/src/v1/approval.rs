//! Approvals: questions to a person.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_domain::Decision;

/// `POST /v1/approvals/{id}/decision`. Decided in the name of the token that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideApproval {
    /// Yes or no.
    pub decision: Decision,
    /// Why; stands in the events and the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Other arguments for the action; only with a yes and only for tools of the built-in loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_args: Option<Value>,
}

impl DecideApproval {
    /// A yes.
    pub fn approve() -> Self {
        Self {
            decision: Decision::Approve,
            reason: None,
            edited_args: None,
        }
    }

    /// A no.
    pub fn reject() -> Self {
        Self {
            decision: Decision::Reject,
            ..Self::approve()
        }
    }
}
