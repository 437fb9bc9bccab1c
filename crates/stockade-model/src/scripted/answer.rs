//! An answer before a wire gives it its shape.

use bytes::Bytes;
use serde_json::{Map, Value};
use stockade_domain::Wire;

use super::file::TurnUsage;

/// What the model answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Makes the ids of the response.
    pub(crate) salt: String,
    pub(crate) model: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) text: String,
    pub(crate) calls: Vec<AnswerCall>,
    pub(crate) usage: TurnUsage,
}

/// A tool call in the client's words.
#[derive(Debug, Clone)]
pub(crate) struct AnswerCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) input: Map<String, Value>,
}

impl AnswerCall {
    pub(crate) fn arguments(&self) -> String {
        Value::Object(self.input.clone()).to_string()
    }
}

impl Answer {
    /// The whole answer as one JSON body.
    pub(crate) fn json(&self, wire: Wire) -> Bytes {
        let body = match wire {
            Wire::AnthropicMessages => super::anthropic::body(self),
            Wire::OpenaiChat => super::chat::body(self),
            Wire::OpenaiResponses => super::responses::body(self),
        };
        Bytes::from(body.to_string())
    }

    /// The answer as server-sent events, one item for each.
    pub(crate) fn events(&self, wire: Wire, include_usage: bool) -> Vec<Bytes> {
        match wire {
            Wire::AnthropicMessages => super::anthropic::events(self),
            Wire::OpenaiChat => super::chat::events(self, include_usage),
            Wire::OpenaiResponses => super::responses::events(self),
        }
    }
}

/// Prefix of call ids, as the wire's own service makes them.
pub(crate) fn call_prefix(wire: Wire) -> &'static str {
    match wire {
        Wire::AnthropicMessages => "toolu",
        Wire::OpenaiChat | Wire::OpenaiResponses => "call",
    }
}

/// An event with a name (WHATWG HTML, section 9.2).
pub(crate) fn named_event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// An event without a name.
pub(crate) fn event(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// Cuts a text into the pieces it is streamed in: a few words each, and all of it.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    const WORDS: usize = 3;
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let cut = rest
            .match_indices(' ')
            .nth(WORDS - 1)
            .map_or(rest.len(), |(at, _)| at + 1);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_are_the_whole_text() {
        for text in ["", "one", "a b c d e f g", "  spaced   out  ", "ü ü ü ü\nü"] {
            assert_eq!(pieces(text).concat(), text);
            assert!(pieces(text).iter().all(|piece| !piece.is_empty()));
        }
    }
}
