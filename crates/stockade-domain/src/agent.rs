//! Agents: who does the work, with which model, under which rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ActionKind, BudgetLimits};

/// A wire format of the model gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Anthropic Messages, `POST /v1/messages`.
    AnthropicMessages,
    /// OpenAI Chat Completions, `POST /v1/chat/completions`.
    OpenaiChat,
    /// OpenAI Responses, `POST /v1/responses`.
    OpenaiResponses,
}

impl Wire {
    /// The wire as configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnthropicMessages => "anthropic_messages",
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
        }
    }
}

/// A file that a harness profile puts into the sandbox before the agent starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// Absolute path inside the sandbox; `${HOME}` is replaced.
    pub path: String,
    /// Content; `${MODEL}` and the other variables are replaced.
    pub content: String,
}

/// How to start an agent that speaks the Agent Client Protocol: data, not code.
///
/// In `command`, `env` and `files` these are replaced: `${AGENTS_DIR}` (where installed
/// agents appear inside), `${HOME}`, `${WORKSPACE}`, `${MODEL}`, `${LLM_URL}` (the model
/// gateway's origin, without a path).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarnessProfile {
    /// Program and arguments of the ACP adapter.
    pub command: Vec<String>,
    /// Environment of the adapter.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Configuration files.
    #[serde(default)]
    pub files: Vec<ProfileFile>,
    /// The wire its model calls use.
    pub wire: Wire,
    /// Whether to offer the client's file system to the agent.
    #[serde(default)]
    pub offer_fs: bool,
    /// Paths below the agents directory that must exist for the agent to be installed.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The command that installs it, as `stockade doctor` prints it; `${AGENTS_DIR}` is the host's directory.
    #[serde(default)]
    pub install: String,
}

/// Who does the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AgentKind {
    /// The loop in the trusted runner: model calls outside, tools inside the sandbox.
    Builtin {
        /// Tools it may use; empty means all.
        #[serde(default)]
        tools: Vec<String>,
    },
    /// An agent inside the sandbox that speaks the Agent Client Protocol.
    Harness(HarnessProfile),
}

/// What a rule answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleVerdict {
    /// Let it happen.
    Allow,
    /// Ask a person; `hold` is read as well.
    #[serde(alias = "hold")]
    Ask,
    /// Refuse it.
    Deny,
}

/// What a rule looks at. Every named part must match; patterns use `*` for any text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleMatch {
    /// The kind of action.
    pub kind: Option<ActionKind>,
    /// The tool's or operation's name.
    pub tool: Option<String>,
    /// The path an action reads or writes; of a request, the path it asks for.
    pub path: Option<String>,
    /// The command line an action runs.
    pub command: Option<String>,
    /// The host an action reaches.
    pub host: Option<String>,
    /// The port a connection goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The method of an HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// One rule; the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A name for events and receipts.
    pub id: String,
    /// What it looks at.
    #[serde(rename = "match")]
    pub when: RuleMatch,
    /// What it answers.
    pub verdict: RuleVerdict,
    /// Why; reviewers read it.
    #[serde(default)]
    pub reason: String,
}

/// Limits an agent's file may set; what is absent keeps the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsPatch {
    /// Caps on tokens, cost, model requests and turns.
    pub budget: BudgetLimits,
    /// Seconds from the start of the run to its forced end.
    pub wall_clock_seconds: Option<u64>,
    /// Seconds without any sign of life from the agent.
    pub inactivity_seconds: Option<u64>,
    /// The same tool with the same input so often asks a person.
    pub repeat_limit: Option<u32>,
    /// Seconds an approval stays open before it counts as denied.
    pub approval_timeout_seconds: Option<u64>,
}

/// An agent: harness or built-in loop, model, rules, limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Its name.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Who does the work.
    pub kind: AgentKind,
    /// The model it asks for when the task names none.
    #[serde(default)]
    pub model: Option<String>,
    /// Instructions put before the task.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Approval rules, first match wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Limits.
    #[serde(default)]
    pub limits: LimitsPatch,
}
