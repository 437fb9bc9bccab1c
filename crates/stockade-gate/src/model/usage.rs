//! What a model call used, read from its answer as it passes.

use serde::Serialize;
use serde_json::Value;
use stockade_domain::Wire;

use super::sse::SseReader;

/// A whole JSON answer longer than this is not read; its usage is then estimated.
const JSON_LIMIT: usize = 32 << 20;
/// Bytes of text that count as one output token when the provider reports none.
const BYTES_PER_OUTPUT_TOKEN: u64 = 3;

/// Tokens of one call, by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Input outside a cache.
    pub input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache.
    pub cache_write: u64,
}

impl Usage {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }
}

/// Reads an answer along.
#[derive(Debug)]
pub(super) struct Meter {
    wire: Wire,
    form: Form,
    seen: Seen,
}

#[derive(Debug)]
enum Form {
    Events(SseReader),
    Json(Vec<u8>),
    /// Too long, or in an encoding the door does not read.
    Unread,
}

/// What an answer has said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) usage: Partial,
    /// Bytes of text, reasoning and tool input.
    pub(super) text_bytes: u64,
    /// The answer said that it is complete.
    pub(super) complete: bool,
    /// The answer said that it failed.
    pub(super) error: Option<String>,
    /// Some of it could not be read.
    pub(super) unread: bool,
}

/// Usage as far as it is known. Later numbers replace earlier ones: they are running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) cache_read: Option<u64>,
    pub(super) cache_write: Option<u64>,
}

impl Partial {
    /// What is known, the rest taken from `fallback`; and whether anything had to be.
    fn or(self, fallback: Usage) -> (Usage, bool) {
        let usage = Usage {
            input: self.input.unwrap_or(fallback.input),
            output: self.output.unwrap_or(fallback.output),
            cache_read: self.cache_read.unwrap_or_default(),
            cache_write: self.cache_write.unwrap_or_default(),
        };
        (usage, self.input.is_none() || self.output.is_none())
    }
}

impl Seen {
    /// The usage, what the answer did not tell estimated; and whether anything had to be.
    ///
    /// The numbers of an answer that is not complete are running ones: its text may already
    /// be worth more.
    pub(super) fn usage_or(&self, expected_input: u64) -> (Usage, bool) {
        let estimate = self.text_bytes.div_ceil(BYTES_PER_OUTPUT_TOKEN);
        let (mut usage, lacking) = self.usage.or(Usage {
            input: expected_input,
            output: estimate,
            ..Usage::default()
        });
        if !self.complete {
            usage.output = usage.output.max(estimate);
        }
        (usage, lacking || !self.complete)
    }
}

impl Meter {
    /// A meter for an answer with this content type and encoding.
    pub(super) fn new(wire: Wire, content_type: Option<&str>, encoded: bool) -> Self {
        let form = match content_type {
            _ if encoded => Form::Unread,
            Some(kind) if kind.trim_start().starts_with("text/event-stream") => Form::Events(SseReader::default()),
            _ => Form::Json(Vec::new()),
        };
        Self {
            wire,
            form,
            seen: Seen::default(),
        }
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let (wire, seen) = (self.wire, &mut self.seen);
        match &mut self.form {
            Form::Events(reader) => reader.feed(piece, |data| event(wire, data, seen)),
            Form::Json(body) if body.len() + piece.len() <= JSON_LIMIT => body.extend_from_slice(piece),
            Form::Json(_) => self.form = Form::Unread,
            Form::Unread => {}
        }
        self.seen.unread = matches!(self.form, Form::Unread);
    }

    /// The answer ended; a whole JSON body can be read now.
    pub(super) fn finish(&mut self) {
        let (wire, seen) = (self.wire, &mut self.seen);
        match &mut self.form {
            Form::Events(reader) => reader.finish(|data| event(wire, data, seen)),
            Form::Json(body) => whole(wire, body, seen),
            Form::Unread => {}
        }
    }

    /// What was read so far.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }
}

fn whole(wire: Wire, body: &[u8], seen: &mut Seen) {
    seen.text_bytes = body.len() as u64;
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    seen.complete = true;
    take_usage(wire, &answer["usage"], &mut seen.usage);
    take_error(&answer["error"], seen);
}

fn event(wire: Wire, data: &[u8], seen: &mut Seen) {
    if data == b"[DONE]" {
        seen.complete = true;
        return;
    }
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    match wire {
        Wire::AnthropicMessages => anthropic(&event, seen),
        Wire::OpenaiChat => chat(&event, seen),
        Wire::OpenaiResponses => responses(&event, seen),
    }
}

fn anthropic(event: &Value, seen: &mut Seen) {
    match event["type"].as_str() {
        Some("message_start") => take_usage(Wire::AnthropicMessages, &event["message"]["usage"], &mut seen.usage),
        Some("message_delta") => take_usage(Wire::AnthropicMessages, &event["usage"], &mut seen.usage),
        Some("content_block_delta") => count(event["delta"].as_object().into_iter().flat_map(|d| d.values()), seen),
        Some("message_stop") => seen.complete = true,
        Some("error") => take_error(&event["error"], seen),
        _ => {}
    }
}

fn chat(event: &Value, seen: &mut Seen) {
    take_usage(Wire::OpenaiChat, &event["usage"], &mut seen.usage);
    take_error(&event["error"], seen);
    // The chunk with the usage is the last one; some services send no `[DONE]` after it.
    seen.complete |= event["usage"].is_object() && list(&event["choices"]).next().is_none();
    for choice in list(&event["choices"]) {
        let delta = &choice["delta"];
        let words = ["content", "reasoning_content", "reasoning", "refusal"].map(|key| &delta[key]);
        count(words.into_iter(), seen);
        count(
            list(&delta["tool_calls"]).map(|call| &call["function"]["arguments"]),
            seen,
        );
    }
}

fn responses(event: &Value, seen: &mut Seen) {
    match event["type"].as_str() {
        Some("response.completed" | "response.incomplete") => {
            take_usage(Wire::OpenaiResponses, &event["response"]["usage"], &mut seen.usage);
            seen.complete = true;
        }
        Some("response.failed") => {
            take_usage(Wire::OpenaiResponses, &event["response"]["usage"], &mut seen.usage);
            take_error(&event["response"]["error"], seen);
            seen.complete = true;
        }
        Some("error") => take_error(event.get("error").unwrap_or(event), seen),
        Some(kind) if kind.ends_with(".delta") => count([&event["delta"]].into_iter(), seen),
        _ => {}
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn count<'a>(texts: impl Iterator<Item = &'a Value>, seen: &mut Seen) {
    let bytes: usize = texts.filter_map(Value::as_str).map(str::len).sum();
    seen.text_bytes = seen.text_bytes.saturating_add(bytes as u64);
}

fn take_error(error: &Value, seen: &mut Seen) {
    if error.is_null() {
        return;
    }
    let message = error["message"].as_str().or_else(|| error.as_str());
    seen.error = Some(message.unwrap_or("the provider reports an error").to_owned());
}

/// Takes the numbers that are there. OpenAI counts cached input inside the input,
/// Anthropic beside it.
fn take_usage(wire: Wire, usage: &Value, partial: &mut Partial) {
    let number = |key: &str| usage.pointer(key).and_then(Value::as_u64);
    let set = |slot: &mut Option<u64>, value: Option<u64>| {
        if value.is_some() {
            *slot = value;
        }
    };
    let (input, output, cached) = match wire {
        Wire::AnthropicMessages => {
            set(&mut partial.input, number("/input_tokens"));
            set(&mut partial.output, number("/output_tokens"));
            set(&mut partial.cache_read, number("/cache_read_input_tokens"));
            set(&mut partial.cache_write, number("/cache_creation_input_tokens"));
            return;
        }
        Wire::OpenaiChat => (
            "/prompt_tokens",
            "/completion_tokens",
            "/prompt_tokens_details/cached_tokens",
        ),
        Wire::OpenaiResponses => ("/input_tokens", "/output_tokens", "/input_tokens_details/cached_tokens"),
    };
    let cached = number(cached);
    set(
        &mut partial.input,
        number(input).map(|all| all.saturating_sub(cached.unwrap_or_default())),
    );
    set(&mut partial.output, number(output));
    set(&mut partial.cache_read, cached);
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
