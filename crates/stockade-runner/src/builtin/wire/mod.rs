//! The three wires of the model gateway, as far as the built-in loop speaks them.
//!
//! Each wire encodes a conversation as a request and reads an answer, whole or streamed;
//! a stream is first put together to what the whole answer would have been.

mod anthropic;
mod chat;
mod responses;
pub(crate) mod sse;
#[cfg(test)]
mod tests;

use serde_json::Value;
use stockade_domain::{FailureClass, Wire};

use super::{
    conversation::{Conversation, Reply},
    tools::ToolSpec,
};

/// Everything of a request but the conversation.
pub(crate) struct Ask<'a> {
    pub(crate) model: &'a str,
    pub(crate) system: &'a str,
    pub(crate) tools: &'a [ToolSpec],
    pub(crate) max_tokens: u32,
}

/// A piece of an answer as it streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A piece of what the model says.
    Text(String),
    /// A piece of what it thinks.
    Thought(String),
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct WireError {
    pub(crate) message: String,
    pub(crate) class: FailureClass,
}

impl WireError {
    fn broken(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class: FailureClass::Unknown,
        }
    }

    pub(crate) fn cut_off() -> Self {
        Self {
            message: "the model's answer broke off".to_owned(),
            class: FailureClass::Transient,
        }
    }

    /// An error the upstream reports inside a stream. Overload passes; the rest is read from its type.
    fn reported(error: &Value) -> Self {
        let kind = ["code", "type"]
            .iter()
            .find_map(|key| error[*key].as_str())
            .unwrap_or("error");
        let words = error["message"].as_str().unwrap_or("no message");
        let class = match kind {
            "overloaded_error"
            | "api_error"
            | "rate_limit_error"
            | "timeout_error"
            | "server_error"
            | "rate_limit_exceeded" => FailureClass::Transient,
            "authentication_error"
            | "permission_error"
            | "invalid_request_error"
            | "not_found_error"
            | "billing_error"
            | "insufficient_quota" => FailureClass::Terminal,
            _ => FailureClass::Unknown,
        };
        Self {
            message: format!("the model reports {kind}: {words}"),
            class,
        }
    }
}

/// Puts a streamed answer together.
pub(crate) trait Assembler: Send {
    /// Takes one event.
    fn event(&mut self, data: &Value) -> Result<Vec<Piece>, WireError>;

    /// The whole answer, once the stream has ended.
    fn finish(self: Box<Self>) -> Result<Reply, WireError>;
}

/// Encodes a request; `stream` is always asked for.
pub(crate) fn encode(wire: Wire, ask: &Ask<'_>, conversation: &Conversation) -> Value {
    match wire {
        Wire::AnthropicMessages => anthropic::encode(ask, conversation),
        Wire::OpenaiChat => chat::encode(ask, conversation),
        Wire::OpenaiResponses => responses::encode(ask, conversation),
    }
}

/// Reads an answer that did not stream.
pub(crate) fn read(wire: Wire, answer: &Value) -> Result<Reply, WireError> {
    match wire {
        Wire::AnthropicMessages => anthropic::read(answer),
        Wire::OpenaiChat => chat::read(answer),
        Wire::OpenaiResponses => responses::read(answer),
    }
}

/// Reads an answer that streams.
pub(crate) fn assembler(wire: Wire) -> Box<dyn Assembler> {
    match wire {
        Wire::AnthropicMessages => Box::<anthropic::Stream>::default(),
        Wire::OpenaiChat => Box::<chat::Stream>::default(),
        Wire::OpenaiResponses => Box::<responses::Stream>::default(),
    }
}

/// A tool's input as text; no text is no input.
fn input_of(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(serde_json::json!({}));
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => Ok(value),
        _ => Err(text.to_owned()),
    }
}

/// Adds text to the text at a key.
fn append(target: &mut Value, key: &str, text: &str) {
    match &mut target[key] {
        Value::String(words) => words.push_str(text),
        other => *other = Value::String(text.to_owned()),
    }
}
