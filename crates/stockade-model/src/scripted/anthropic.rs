//! Anthropic Messages: the shape of answers and of their stream
//! (Anthropic API reference, "Messages" and "Streaming Messages").

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, named_event, pieces};

pub(super) fn body(answer: &Answer) -> Value {
    let text = (!answer.text.is_empty()).then(|| json!({ "type": "text", "text": answer.text }));
    let calls = answer
        .calls
        .iter()
        .map(|call| json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": call.input }));
    let content: Vec<Value> = text.into_iter().chain(calls).collect();
    message(answer, &content, Some(stop_reason(answer)), answer.usage.output)
}

fn message(answer: &Answer, content: &[Value], stop_reason: Option<&str>, output: u64) -> Value {
    json!({
        "id": format!("msg_{}", answer.salt), "type": "message", "role": "assistant", "model": answer.model,
        "content": content, "stop_reason": stop_reason, "stop_sequence": null, "usage": usage(answer, output),
    })
}

fn usage(answer: &Answer, output: u64) -> Value {
    json!({
        "input_tokens": answer.usage.input,
        "cache_creation_input_tokens": answer.usage.cache_write,
        "cache_read_input_tokens": answer.usage.cache_read,
        "output_tokens": output,
    })
}

fn stop_reason(answer: &Answer) -> &'static str {
    if answer.calls.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    }
}

pub(super) fn events(answer: &Answer) -> Vec<Bytes> {
    let mut events = vec![
        named_event(
            "message_start",
            &json!({ "type": "message_start", "message": message(answer, &[], None, answer.usage.output.min(1)) }),
        ),
        named_event("ping", &json!({ "type": "ping" })),
    ];
    let mut index = 0;
    if !answer.text.is_empty() {
        let deltas = pieces(&answer.text)
            .into_iter()
            .map(|text| json!({ "type": "text_delta", "text": text }));
        block(&mut events, index, &json!({ "type": "text", "text": "" }), deltas);
        index += 1;
    }
    for call in &answer.calls {
        let start = json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": {} });
        let arguments = call.arguments();
        let deltas = pieces(&arguments)
            .into_iter()
            .map(|part| json!({ "type": "input_json_delta", "partial_json": part }));
        block(&mut events, index, &start, deltas);
        index += 1;
    }
    events.push(named_event(
        "message_delta",
        &json!({
            "type": "message_delta", "delta": { "stop_reason": stop_reason(answer), "stop_sequence": null },
            "usage": usage(answer, answer.usage.output),
        }),
    ));
    events.push(named_event("message_stop", &json!({ "type": "message_stop" })));
    events
}

fn block(events: &mut Vec<Bytes>, index: usize, start: &Value, deltas: impl Iterator<Item = Value>) {
    events.push(named_event(
        "content_block_start",
        &json!({ "type": "content_block_start", "index": index, "content_block": start }),
    ));
    events.extend(deltas.map(|delta| {
        named_event(
            "content_block_delta",
            &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
        )
    }));
    events.push(named_event(
        "content_block_stop",
        &json!({ "type": "content_block_stop", "index": index }),
    ));
}
