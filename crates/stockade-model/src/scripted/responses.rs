//! OpenAI Responses: the shape of answers and of their stream
//! (OpenAI API reference, "Responses" and "Streaming events").

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, AnswerCall, named_event, pieces};

pub(super) fn body(answer: &Answer) -> Value {
    let text = (!answer.text.is_empty()).then(|| message(answer, &[part(&answer.text)], "completed"));
    let calls = answer
        .calls
        .iter()
        .enumerate()
        .map(|(index, call)| function_call(answer, index, call, &call.arguments(), "completed"));
    let output: Vec<Value> = text.into_iter().chain(calls).collect();
    response(answer, "completed", &output, Some(usage(answer)))
}

fn response(answer: &Answer, status: &str, output: &[Value], usage: Option<Value>) -> Value {
    json!({
        "id": format!("resp_{}", answer.salt), "object": "response", "created_at": answer.created, "status": status,
        "background": false, "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "max_tool_calls": null, "model": answer.model, "output": output,
        "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "reasoning": { "effort": null, "summary": null }, "safety_identifier": null, "service_tier": "default",
        "store": false, "temperature": 1.0, "text": { "format": { "type": "text" }, "verbosity": "medium" },
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
        "usage": usage, "user": null, "metadata": {},
    })
}

fn usage(answer: &Answer) -> Value {
    let input = answer.usage.input + answer.usage.cache_read;
    json!({
        "input_tokens": input, "input_tokens_details": { "cached_tokens": answer.usage.cache_read },
        "output_tokens": answer.usage.output, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": input + answer.usage.output,
    })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn message_id(answer: &Answer) -> String {
    format!("msg_{}", answer.salt)
}

fn message(answer: &Answer, content: &[Value], status: &str) -> Value {
    json!({ "id": message_id(answer), "type": "message", "status": status, "role": "assistant", "content": content })
}

fn call_item_id(answer: &Answer, index: usize) -> String {
    format!("fc_{}_{index}", answer.salt)
}

fn function_call(answer: &Answer, index: usize, call: &AnswerCall, arguments: &str, status: &str) -> Value {
    let mut item = json!({
        "id": call_item_id(answer, index), "type": "function_call", "status": status,
        "call_id": call.id, "name": call.name, "arguments": arguments,
    });
    if let Some(namespace) = &call.namespace {
        item["namespace"] = namespace.as_str().into();
    }
    item
}

/// Numbers the events of one stream.
struct Stream {
    events: Vec<Bytes>,
}

impl Stream {
    fn push(&mut self, kind: &str, mut data: Value) {
        data["type"] = kind.into();
        data["sequence_number"] = self.events.len().into();
        self.events.push(named_event(kind, &data));
    }
}

pub(super) fn events(answer: &Answer) -> Vec<Bytes> {
    let mut stream = Stream { events: Vec::new() };
    let started = response(answer, "in_progress", &[], None);
    stream.push("response.created", json!({ "response": started }));
    stream.push("response.in_progress", json!({ "response": started }));
    let mut place = 0;
    if !answer.text.is_empty() {
        text_events(&mut stream, answer, place);
        place += 1;
    }
    for (index, call) in answer.calls.iter().enumerate() {
        call_events(&mut stream, answer, index, call, place);
        place += 1;
    }
    stream.push("response.completed", json!({ "response": body(answer) }));
    stream.events
}

fn text_events(stream: &mut Stream, answer: &Answer, place: usize) {
    let at = |mut data: Value| {
        data["item_id"] = message_id(answer).into();
        data["output_index"] = place.into();
        data["content_index"] = 0.into();
        data
    };
    stream.push(
        "response.output_item.added",
        json!({ "output_index": place, "item": message(answer, &[], "in_progress") }),
    );
    stream.push("response.content_part.added", at(json!({ "part": part("") })));
    for text in pieces(&answer.text) {
        stream.push(
            "response.output_text.delta",
            at(json!({ "delta": text, "logprobs": [] })),
        );
    }
    stream.push(
        "response.output_text.done",
        at(json!({ "text": answer.text, "logprobs": [] })),
    );
    stream.push("response.content_part.done", at(json!({ "part": part(&answer.text) })));
    stream.push(
        "response.output_item.done",
        json!({ "output_index": place, "item": message(answer, &[part(&answer.text)], "completed") }),
    );
}

fn call_events(stream: &mut Stream, answer: &Answer, index: usize, call: &AnswerCall, place: usize) {
    let at = |mut data: Value| {
        data["item_id"] = call_item_id(answer, index).into();
        data["output_index"] = place.into();
        data
    };
    let arguments = call.arguments();
    let item = |arguments: &str, status| function_call(answer, index, call, arguments, status);
    stream.push(
        "response.output_item.added",
        json!({ "output_index": place, "item": item("", "in_progress") }),
    );
    for part in pieces(&arguments) {
        stream.push("response.function_call_arguments.delta", at(json!({ "delta": part })));
    }
    stream.push(
        "response.function_call_arguments.done",
        at(json!({ "name": call.name, "arguments": arguments })),
    );
    stream.push(
        "response.output_item.done",
        json!({ "output_index": place, "item": item(&arguments, "completed") }),
    );
}
