//! The script file: a YAML list of turns.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A scripted model, as its file says it. `docs/scripted-models.md` describes the format.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The model's name as responses report it.
    #[serde(default = "scripted")]
    pub model: String,
    /// What it says, in this order.
    pub turns: Vec<Turn>,
    /// What it says when the turns are used up; without it that is an error.
    #[serde(default)]
    pub otherwise: Option<Turn>,
    /// What it says to requests that offer no tools: titles, summaries.
    #[serde(default = "untooled")]
    pub untooled: String,
}

fn scripted() -> String {
    "scripted".to_owned()
}

fn untooled() -> String {
    "Scripted session".to_owned()
}

/// One answer of the model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(try_from = "TurnText")]
pub struct Turn {
    /// When the turn applies; a turn that does not apply is passed over.
    pub when: Guard,
    /// The words.
    pub say: Option<String>,
    /// Tool calls; none ends the agent's turn.
    pub call: Vec<Call>,
    /// Tokens to report; estimated when absent.
    pub usage: Option<TurnUsage>,
    /// Milliseconds before the first byte.
    pub delay_ms: u64,
    /// Milliseconds between two events of a stream.
    pub chunk_delay_ms: u64,
    /// An HTTP error instead of an answer.
    pub error: Option<ErrorTurn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct TurnText {
    #[serde(default)]
    when: Guard,
    say: Option<String>,
    #[serde(default)]
    call: Vec<Call>,
    usage: Option<TurnUsage>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    chunk_delay_ms: u64,
    error: Option<ErrorTurn>,
}

impl TryFrom<TurnText> for Turn {
    type Error = &'static str;

    fn try_from(text: TurnText) -> Result<Self, &'static str> {
        let speaks = text.say.is_some() || !text.call.is_empty();
        if speaks == text.error.is_some() {
            return Err("a turn needs 'say' or 'call' (or both), or 'error' alone");
        }
        Ok(Self {
            when: text.when,
            say: text.say,
            call: text.call,
            usage: text.usage,
            delay_ms: text.delay_ms,
            chunk_delay_ms: text.chunk_delay_ms,
            error: text.error,
        })
    }
}

/// When a turn applies: every pattern given must match. `*` stands for any text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// The tool results since the model last spoke, joined by newlines.
    pub last_tool_result: Option<String>,
    /// What people said since the model's last final answer, joined by newlines.
    pub request: Option<String>,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool: `bash`, `read`, `write`, `edit`, or a name the client offers.
    pub tool: String,
    /// Its input.
    #[serde(default)]
    pub input: Map<String, Value>,
    /// Why the call should leave the agent's own sandbox, where the client knows such a thing.
    #[serde(default)]
    pub escalate: Option<String>,
    /// Exact calls for particular clients, by the tool's name as offered: the first that is
    /// offered is used instead, unchanged.
    #[serde(default)]
    pub exact: BTreeMap<String, Map<String, Value>>,
}

/// Tokens to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnUsage {
    /// Input tokens, without those read from or written to a cache.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from a cache.
    #[serde(default)]
    pub cache_read: u64,
    /// Input tokens written to a cache (Anthropic only).
    #[serde(default)]
    pub cache_write: u64,
}

/// An HTTP error instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorTurn {
    /// The status, 400 to 599.
    pub status: ErrorStatus,
    /// Seconds for a `retry-after` header.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// How often, before the next turn is used; always when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// The message in the body.
    #[serde(default)]
    pub message: Option<String>,
}

/// A status that says something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct ErrorStatus(pub u16);

impl TryFrom<u16> for ErrorStatus {
    type Error = &'static str;

    fn try_from(status: u16) -> Result<Self, &'static str> {
        match status {
            400..=599 => Ok(Self(status)),
            _ => Err("an error's status is between 400 and 599"),
        }
    }
}

/// What is wrong with a script file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("script, line {line}, column {column}: {message}")]
pub struct ScriptError {
    /// Line, from 1; 0 when the place is not known.
    pub line: u64,
    /// Column, from 1; 0 when the place is not known.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// [`ScriptError`] with the place of the first mistake.
    pub fn parse(yaml: &str) -> Result<Self, ScriptError> {
        serde_saphyr::from_str(yaml).map_err(|error| {
            let place = error.location();
            let text = error.without_snippet().to_string();
            ScriptError {
                line: place.map_or(0, |p| p.line()),
                column: place.map_or(0, |p| p.column()),
                message: plain(&text),
            }
        })
    }
}

/// The parser's message without the place it repeats and in one line.
fn plain(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    match line.find(" at line ") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_script_reads() {
        let script = Script::parse(
            "turns:\n  - say: look\n    call: [{tool: bash, input: {command: ls}}]\n    usage: {input: 900, output: 40}\n  - when: {last_tool_result: '*FAIL*'}\n    error: {status: 529, retry_after: 1, times: 2}\n  - say: Done.\notherwise: {say: more}\n",
        )
        .unwrap();
        assert_eq!(script.model, "scripted");
        assert_eq!(script.turns.len(), 3);
        assert_eq!(script.turns[0].call[0].input["command"], "ls");
        assert_eq!(script.turns[1].error.as_ref().unwrap().times, Some(2));
        assert_eq!(script.otherwise.unwrap().say.as_deref(), Some("more"));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let at = |yaml: &str| Script::parse(yaml).unwrap_err();
        let unknown = at("turns:\n  - say: a\n    tool: b\n");
        assert_eq!((unknown.line, unknown.column), (3, 5), "{unknown}");
        assert!(unknown.message.contains("tool"), "{unknown}");
        let empty = at("turns:\n  - say: a\n  - delay_ms: 5\n");
        assert_eq!(empty.line, 3, "{empty}");
        assert!(empty.message.contains("'say' or 'call'"), "{empty}");
        let status = at("turns:\n  - error: {status: 200}\n");
        assert_eq!(status.line, 2, "{status}");
        assert!(status.message.contains("between 400 and 599"), "{status}");
        let syntax = at("turns: [\n");
        assert!(syntax.line >= 1, "{syntax}");
        assert!(!syntax.message.is_empty());
    }
}
