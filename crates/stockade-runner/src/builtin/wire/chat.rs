//! OpenAI Chat Completions.

use serde_json::{Value, json};

use super::{Ask, Assembler, Piece, WireError, append, input_of};
use crate::builtin::conversation::{Conversation, Entry, Reply, Stop, ToolCall};

pub(super) fn encode(ask: &Ask<'_>, conversation: &Conversation) -> Value {
    let tools: Vec<Value> = ask
        .tools
        .iter()
        .map(|t| {
            let function = json!({ "name": t.name, "description": t.description, "parameters": t.schema });
            json!({ "type": "function", "function": function })
        })
        .collect();
    let mut messages = vec![json!({ "role": "system", "content": ask.system })];
    for entry in &conversation.entries {
        match entry {
            Entry::User(text) => messages.push(json!({ "role": "user", "content": text })),
            Entry::Assistant(reply) => messages.extend(reply.raw.iter().cloned()),
            Entry::Results(results) => messages.extend(
                results
                    .iter()
                    .map(|r| json!({ "role": "tool", "tool_call_id": r.call, "content": r.text })),
            ),
        }
    }
    json!({
        "model": ask.model, "messages": messages, "tools": tools, "max_completion_tokens": ask.max_tokens,
        "stream": true, "stream_options": { "include_usage": true },
    })
}

pub(super) fn read(answer: &Value) -> Result<Reply, WireError> {
    if answer["error"].is_object() {
        return Err(WireError::reported(&answer["error"]));
    }
    let choice = answer["choices"]
        .get(0)
        .ok_or_else(|| WireError::broken("the model's answer has no choice"))?;
    let message = &choice["message"];
    let text = message["content"].as_str().unwrap_or_default().to_owned();
    let refusal = message["refusal"].as_str().filter(|words| !words.is_empty());
    let calls: Vec<ToolCall> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(call)
        .collect();
    let mut raw = Vec::new();
    if !text.is_empty() || !calls.is_empty() {
        let mut sent_back =
            json!({ "role": "assistant", "content": if text.is_empty() { Value::Null } else { json!(text) } });
        if !calls.is_empty() {
            sent_back["tool_calls"] = calls.iter().map(sent_back_call).collect();
        }
        raw.push(sent_back);
    }
    let stop = match choice["finish_reason"].as_str() {
        Some("length") => Stop::Length,
        Some("content_filter") => Stop::Refusal,
        _ if refusal.is_some() => Stop::Refusal,
        _ => Stop::Done,
    };
    let text = refusal.map_or(text, str::to_owned);
    Ok(Reply { text, calls, stop, raw })
}

fn call(value: &Value) -> ToolCall {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ToolCall {
        id: text(&value["id"]),
        name: text(&value["function"]["name"]),
        input: input_of(&text(&value["function"]["arguments"])),
    }
}

fn sent_back_call(call: &ToolCall) -> Value {
    let arguments = call.input.as_ref().map_or_else(|_| "{}".to_owned(), Value::to_string);
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

/// Puts a streamed answer together.
#[derive(Debug, Default)]
pub(super) struct Stream {
    content: String,
    refusal: String,
    calls: Vec<Value>,
    finish_reason: Value,
}

impl Assembler for Stream {
    fn event(&mut self, data: &Value) -> Result<Vec<Piece>, WireError> {
        if data["error"].is_object() {
            return Err(WireError::reported(&data["error"]));
        }
        let Some(choice) = data["choices"].get(0) else {
            return Ok(Vec::new());
        };
        if !choice["finish_reason"].is_null() {
            self.finish_reason = choice["finish_reason"].clone();
        }
        let delta = &choice["delta"];
        let mut pieces = Vec::new();
        if let Some(text) = delta["content"].as_str().filter(|t| !t.is_empty()) {
            self.content.push_str(text);
            pieces.push(Piece::Text(text.to_owned()));
        }
        if let Some(text) = delta["reasoning_content"].as_str().or(delta["reasoning"].as_str()) {
            pieces.push(Piece::Thought(text.to_owned()));
        }
        if let Some(text) = delta["refusal"].as_str() {
            self.refusal.push_str(text);
        }
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call_piece(piece)?;
        }
        Ok(pieces)
    }

    fn finish(self: Box<Self>) -> Result<Reply, WireError> {
        if self.finish_reason.is_null() {
            return Err(WireError::cut_off());
        }
        let message = json!({ "content": self.content, "refusal": self.refusal, "tool_calls": self.calls });
        read(&json!({ "choices": [{ "message": message, "finish_reason": self.finish_reason }] }))
    }
}

impl Stream {
    fn call_piece(&mut self, piece: &Value) -> Result<(), WireError> {
        let index = piece["index"].as_u64().unwrap_or(0);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if index > self.calls.len() {
            return Err(WireError::broken("a piece of a tool call came before its beginning"));
        }
        if index == self.calls.len() {
            self.calls
                .push(json!({ "id": "", "function": { "name": "", "arguments": "" } }));
        }
        let call = &mut self.calls[index];
        if let Some(id) = piece["id"].as_str().filter(|id| !id.is_empty()) {
            call["id"] = json!(id);
        }
        for key in ["name", "arguments"] {
            if let Some(text) = piece["function"][key].as_str() {
                append(&mut call["function"], key, text);
            }
        }
        Ok(())
    }
}
