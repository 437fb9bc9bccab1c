//! Anthropic Messages.

use serde_json::{Value, json};

use super::{Ask, Assembler, Piece, WireError, append, input_of};
use crate::builtin::conversation::{Conversation, Entry, Reply, Stop, ToolCall};

pub(super) fn encode(ask: &Ask<'_>, conversation: &Conversation) -> Value {
    let tools: Vec<Value> = ask
        .tools
        .iter()
        .map(|t| json!({ "name": t.name, "description": t.description, "input_schema": t.schema }))
        .collect();
    // The mark on the system text covers the tools before it as well.
    let system = json!([{ "type": "text", "text": ask.system, "cache_control": { "type": "ephemeral" } }]);
    let mut messages = messages(conversation);
    if let Some(block) = messages
        .last_mut()
        .and_then(|m| m["content"].as_array_mut())
        .and_then(|blocks| blocks.last_mut())
    {
        block["cache_control"] = json!({ "type": "ephemeral" });
    }
    json!({
        "model": ask.model, "max_tokens": ask.max_tokens, "system": system, "messages": messages,
        "tools": tools, "stream": true,
    })
}

/// Results and words between two answers make one user message: results must come first and at once.
fn messages(conversation: &Conversation) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    for entry in &conversation.entries {
        let (role, blocks) = match entry {
            Entry::User(text) => ("user", vec![json!({ "type": "text", "text": text })]),
            Entry::Assistant(reply) => ("assistant", reply.raw.clone()),
            Entry::Results(results) => {
                let block = |r: &crate::builtin::conversation::ToolResult| json!({ "type": "tool_result", "tool_use_id": r.call, "content": r.text, "is_error": r.error });
                ("user", results.iter().map(block).collect())
            }
        };
        if blocks.is_empty() {
            continue;
        }
        match messages.last_mut() {
            Some(last) if last["role"] == role => {
                if let Some(content) = last["content"].as_array_mut() {
                    content.extend(blocks);
                }
            }
            _ => messages.push(json!({ "role": role, "content": blocks })),
        }
    }
    messages
}

pub(super) fn read(answer: &Value) -> Result<Reply, WireError> {
    if answer["type"] == "error" {
        return Err(WireError::reported(&answer["error"]));
    }
    let blocks = answer["content"]
        .as_array()
        .ok_or_else(|| WireError::broken("the model's answer has no content"))?;
    let mut reply = Reply {
        text: String::new(),
        calls: Vec::new(),
        stop: match answer["stop_reason"].as_str() {
            Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
            Some("refusal") => Stop::Refusal,
            _ => Stop::Done,
        },
        raw: Vec::new(),
    };
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => {
                let text = block["text"].as_str().unwrap_or_default();
                if text.is_empty() {
                    continue;
                }
                reply.text.push_str(text);
                reply.raw.push(block.clone());
            }
            Some("tool_use") => {
                let (call, block) = tool_use(block);
                reply.calls.push(call);
                reply.raw.push(block);
            }
            _ => reply.raw.push(block.clone()),
        }
    }
    Ok(reply)
}

/// The call, and the block as it may be sent back: its input must be an object.
fn tool_use(block: &Value) -> (ToolCall, Value) {
    let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
    let input = match &block["input"] {
        Value::String(partial) => input_of(partial),
        Value::Object(_) => Ok(block["input"].clone()),
        Value::Null => Ok(json!({})),
        other => Err(other.to_string()),
    };
    let mut sent_back = block.clone();
    sent_back["input"] = input.clone().unwrap_or_else(|_| json!({}));
    let call = ToolCall {
        id: text("id"),
        name: text("name"),
        input,
    };
    (call, sent_back)
}

/// Puts a streamed answer together.
#[derive(Debug, Default)]
pub(super) struct Stream {
    blocks: Vec<Value>,
    stop_reason: Value,
    ended: bool,
}

impl Assembler for Stream {
    fn event(&mut self, data: &Value) -> Result<Vec<Piece>, WireError> {
        match data["type"].as_str() {
            Some("content_block_start") => {
                let mut block = data["content_block"].clone();
                if block["type"] == "tool_use" {
                    // Filled by the pieces that follow; the empty object it starts with is no input.
                    block["input"] = match &block["input"] {
                        Value::Object(map) if !map.is_empty() => json!(data["content_block"]["input"].to_string()),
                        _ => json!(""),
                    };
                }
                let first = block["text"].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
                self.blocks.push(block);
                Ok(first.map(Piece::Text).into_iter().collect())
            }
            Some("content_block_delta") => self.delta(data),
            Some("message_delta") => {
                if let Some(reason) = data["delta"].get("stop_reason") {
                    self.stop_reason = reason.clone();
                }
                Ok(Vec::new())
            }
            Some("message_stop") => {
                self.ended = true;
                Ok(Vec::new())
            }
            Some("error") => Err(WireError::reported(&data["error"])),
            _ => Ok(Vec::new()),
        }
    }

    fn finish(self: Box<Self>) -> Result<Reply, WireError> {
        if !self.ended {
            return Err(WireError::cut_off());
        }
        read(&json!({ "content": self.blocks, "stop_reason": self.stop_reason }))
    }
}

impl Stream {
    fn delta(&mut self, data: &Value) -> Result<Vec<Piece>, WireError> {
        let block = data["index"]
            .as_u64()
            .and_then(|index| self.blocks.get_mut(usize::try_from(index).ok()?))
            .ok_or_else(|| WireError::broken("a piece of the model's answer belongs to no block"))?;
        let delta = &data["delta"];
        let text = |key: &str| delta[key].as_str().unwrap_or_default();
        match delta["type"].as_str() {
            Some("text_delta") => {
                append(block, "text", text("text"));
                Ok(vec![Piece::Text(text("text").to_owned())])
            }
            Some("input_json_delta") => {
                append(block, "input", text("partial_json"));
                Ok(Vec::new())
            }
            Some("thinking_delta") => {
                append(block, "thinking", text("thinking"));
                Ok(vec![Piece::Thought(text("thinking").to_owned())])
            }
            Some("signature_delta") => {
                append(block, "signature", text("signature"));
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }
}
