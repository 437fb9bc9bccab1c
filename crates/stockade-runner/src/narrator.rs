//! What an agent says and does, told as events: pieces of text joined to at most ten
//! events a second, long texts cut.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_domain::{EventType, Failure, NewEvent};
use stockade_gate::{Gate, Scope};
use tokio::time::Instant;

use crate::{mishap, text};

/// Shortest time between two events with pieces of text.
pub(crate) const PACE: Duration = Duration::from_millis(100);

/// Tells one run's story.
pub(crate) struct Narrator {
    gate: Gate,
    scope: Scope,
    said: String,
    thought: String,
    message: text::MiddleOut,
    flushed: Instant,
    last_words: String,
}

impl Narrator {
    pub(crate) fn new(gate: Gate, scope: Scope) -> Self {
        Self {
            gate,
            scope,
            said: String::new(),
            thought: String::new(),
            message: text::MiddleOut::new(text::EVENT_TEXT),
            flushed: Instant::now(),
            last_words: String::new(),
        }
    }

    /// The agent says a piece of a message.
    pub(crate) async fn say(&mut self, piece: &str) -> Result<(), Failure> {
        self.said.push_str(piece);
        self.message.push(piece.as_bytes());
        self.pace().await
    }

    /// The agent thinks aloud.
    pub(crate) async fn think(&mut self, piece: &str) -> Result<(), Failure> {
        self.thought.push_str(piece);
        self.pace().await
    }

    /// Whether pieces wait to be told.
    pub(crate) fn has_pieces(&self) -> bool {
        !self.said.is_empty() || !self.thought.is_empty()
    }

    async fn pace(&mut self) -> Result<(), Failure> {
        if self.flushed.elapsed() >= PACE || self.said.len() + self.thought.len() >= text::EVENT_TEXT {
            self.flush().await?;
        }
        Ok(())
    }

    /// Tells the pieces that wait.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        let events = self.pieces();
        self.record(events).await
    }

    fn pieces(&mut self) -> Vec<NewEvent> {
        let mut events = Vec::new();
        for (kind, buffer) in [
            (EventType::ThoughtDelta, &mut self.thought),
            (EventType::MessageDelta, &mut self.said),
        ] {
            let whole = std::mem::take(buffer);
            let mut rest = whole.as_str();
            while !rest.is_empty() {
                let (piece, _) = text::clip(rest, text::EVENT_TEXT);
                events.push(NewEvent::new(kind, json!({ "text": piece })));
                rest = &rest[piece.len()..];
            }
        }
        self.flushed = Instant::now();
        events
    }

    /// The agent has finished a message.
    pub(crate) async fn end_message(&mut self) -> Result<(), Failure> {
        let mut events = self.pieces();
        let message = std::mem::replace(&mut self.message, text::MiddleOut::new(text::EVENT_TEXT));
        if message.total() > 0 {
            let truncated = message.total() > text::EVENT_TEXT as u64;
            let words = message.into_text();
            let mut data = json!({ "text": words });
            if truncated {
                data["truncated"] = json!(true);
            }
            events.push(NewEvent::new(EventType::MessageAgent, data));
            self.last_words = words;
        }
        self.record(events).await
    }

    /// Something else happened.
    pub(crate) async fn tell(&mut self, kind: EventType, data: Value) -> Result<(), Failure> {
        let mut events = self.pieces();
        events.push(NewEvent::new(kind, data));
        self.record(events).await
    }

    /// The last whole message.
    pub(crate) fn last_words(&self) -> &str {
        &self.last_words
    }

    async fn record(&mut self, events: Vec<NewEvent>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        self.gate
            .record(&self.scope, events)
            .await
            .map_err(|e| mishap::store(&e))
    }
}

/// A value for an event: long texts in it are cut, and it says so.
pub(crate) fn shown(value: &Value) -> Value {
    let mut left = text::EVENT_TEXT;
    let mut truncated = false;
    let mut out = cut(value, &mut left, &mut truncated, 0);
    if truncated {
        match &mut out {
            Value::Object(map) => {
                map.insert("truncated".to_owned(), json!(true));
            }
            other => out = json!({ "value": other.take(), "truncated": true }),
        }
    }
    out
}

fn cut(value: &Value, left: &mut usize, truncated: &mut bool, depth: usize) -> Value {
    if depth > 32 || *left == 0 {
        *truncated = true;
        return Value::Null;
    }
    match value {
        Value::String(words) => {
            let (kept, was_cut) = text::clip(words, *left);
            *truncated |= was_cut;
            *left -= kept.len();
            json!(kept)
        }
        Value::Array(items) => items.iter().map(|item| cut(item, left, truncated, depth + 1)).collect(),
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, item) in map {
                if *left < key.len() {
                    *truncated = true;
                    break;
                }
                *left -= key.len();
                out.insert(key.clone(), cut(item, left, truncated, depth + 1));
            }
            Value::Object(out)
        }
        other => {
            *left = left.saturating_sub(8);
            other.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_and_marked_and_short_ones_stay() {
        let short = json!({ "a": [1, true, null, "x"] });
        assert_eq!(shown(&short), short);
        let long = shown(&json!({ "a": "x".repeat(20_000), "b": "y" }));
        assert_eq!(long["truncated"], true);
        assert!(long.to_string().len() < 9000);
        let array = shown(&json!(["x".repeat(20_000)]));
        assert_eq!(array["truncated"], true);
    }
}
