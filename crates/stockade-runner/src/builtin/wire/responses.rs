//! OpenAI Responses, without state on the provider's side.

use serde_json::{Value, json};

use super::{Ask, Assembler, Piece, WireError, input_of};
use crate::builtin::conversation::{Conversation, Entry, Reply, Stop, ToolCall};

pub(super) fn encode(ask: &Ask<'_>, conversation: &Conversation) -> Value {
    let tools: Vec<Value> = ask
        .tools
        .iter()
        .map(|t| {
            json!({
                "type": "function", "name": t.name, "description": t.description, "parameters": t.schema, "strict": false,
            })
        })
        .collect();
    let mut input: Vec<Value> = Vec::new();
    for entry in &conversation.entries {
        match entry {
            Entry::User(text) => input.push(json!({
                "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }],
            })),
            Entry::Assistant(reply) => input.extend(reply.raw.iter().cloned()),
            Entry::Results(results) => input.extend(
                results
                    .iter()
                    .map(|r| json!({ "type": "function_call_output", "call_id": r.call, "output": r.text })),
            ),
        }
    }
    json!({
        "model": ask.model, "instructions": ask.system, "input": input, "tools": tools,
        "max_output_tokens": ask.max_tokens, "store": false, "stream": true,
    })
}

pub(super) fn read(answer: &Value) -> Result<Reply, WireError> {
    if answer["error"].is_object() {
        return Err(WireError::reported(&answer["error"]));
    }
    let items = answer["output"]
        .as_array()
        .ok_or_else(|| WireError::broken("the model's answer has no output"))?;
    let mut reply = Reply {
        text: String::new(),
        calls: Vec::new(),
        stop: match answer["incomplete_details"]["reason"].as_str() {
            Some("max_output_tokens") => Stop::Length,
            Some("content_filter") => Stop::Refusal,
            _ => Stop::Done,
        },
        raw: Vec::new(),
    };
    for item in items {
        match item["type"].as_str() {
            Some("message") => message(item, &mut reply),
            Some("function_call") => function_call(item, &mut reply),
            // Reasoning is kept by nobody when `store` is false, so it cannot be referred to later.
            _ => {}
        }
    }
    Ok(reply)
}

fn message(item: &Value, reply: &mut Reply) {
    let mut words = String::new();
    for part in item["content"].as_array().into_iter().flatten() {
        match part["type"].as_str() {
            Some("output_text") => words.push_str(part["text"].as_str().unwrap_or_default()),
            Some("refusal") => {
                words.push_str(part["refusal"].as_str().unwrap_or_default());
                reply.stop = Stop::Refusal;
            }
            _ => {}
        }
    }
    if words.is_empty() {
        return;
    }
    let content = json!([{ "type": "output_text", "text": words }]);
    // Without the item's id: it names something the provider has not kept.
    reply
        .raw
        .push(json!({ "type": "message", "role": "assistant", "content": content }));
    reply.text.push_str(&words);
}

fn function_call(item: &Value, reply: &mut Reply) {
    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let call = ToolCall {
        id: text("call_id"),
        name: text("name"),
        input: input_of(&text("arguments")),
    };
    let arguments = call.input.as_ref().map_or_else(|_| "{}".to_owned(), Value::to_string);
    reply.raw.push(json!({
        "type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments,
    }));
    reply.calls.push(call);
}

/// Puts a streamed answer together.
#[derive(Debug, Default)]
pub(super) struct Stream {
    items: Vec<Value>,
    end: Option<Value>,
}

impl Assembler for Stream {
    fn event(&mut self, data: &Value) -> Result<Vec<Piece>, WireError> {
        let delta = || data["delta"].as_str().unwrap_or_default().to_owned();
        match data["type"].as_str() {
            Some("response.output_text.delta") => return Ok(vec![Piece::Text(delta())]),
            Some("response.reasoning_summary_text.delta" | "response.reasoning_text.delta") => {
                return Ok(vec![Piece::Thought(delta())]);
            }
            Some("response.output_item.done") => self.items.push(data["item"].clone()),
            Some("response.completed" | "response.incomplete") => self.end = Some(data["response"].clone()),
            Some("response.failed") => return Err(WireError::reported(&data["response"]["error"])),
            Some("error") => {
                let error = if data["error"].is_object() {
                    &data["error"]
                } else {
                    data
                };
                return Err(WireError::reported(error));
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn finish(self: Box<Self>) -> Result<Reply, WireError> {
        let mut answer = self.end.ok_or_else(WireError::cut_off)?;
        if answer["output"].as_array().is_none_or(Vec::is_empty) {
            answer["output"] = Value::Array(self.items);
        }
        read(&answer)
    }
}
