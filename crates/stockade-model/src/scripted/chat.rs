//! OpenAI Chat Completions: the shape of answers and of their stream
//! (OpenAI API reference, "Chat Completions").

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, AnswerCall, event, pieces};

pub(super) fn body(answer: &Answer) -> Value {
    let content = (!answer.text.is_empty()).then_some(&answer.text);
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null, "annotations": [] });
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer
            .calls
            .iter()
            .map(|call| tool_call(call, &call.arguments()))
            .collect();
    }
    json!({
        "id": id(answer), "object": "chat.completion", "created": answer.created, "model": answer.model,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(answer) }],
        "usage": usage(answer), "service_tier": "default", "system_fingerprint": null,
    })
}

fn id(answer: &Answer) -> String {
    format!("chatcmpl-{}", answer.salt)
}

fn finish_reason(answer: &Answer) -> &'static str {
    if answer.calls.is_empty() { "stop" } else { "tool_calls" }
}

fn tool_call(call: &AnswerCall, arguments: &str) -> Value {
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

fn usage(answer: &Answer) -> Value {
    let input = answer.usage.input + answer.usage.cache_read;
    json!({
        "prompt_tokens": input, "completion_tokens": answer.usage.output, "total_tokens": input + answer.usage.output,
        "prompt_tokens_details": { "cached_tokens": answer.usage.cache_read, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 },
    })
}

pub(super) fn events(answer: &Answer, include_usage: bool) -> Vec<Bytes> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": id(answer), "object": "chat.completion.chunk", "created": answer.created, "model": answer.model,
            "service_tier": "default", "system_fingerprint": null, "choices": choices,
        });
        // The key is there, null until the last chunk, only when the client asked for usage.
        if include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        event(&chunk.to_string())
    };
    let delta = |delta: Value, finish: Option<&str>| {
        let choices = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }]);
        chunk(choices, None)
    };
    let mut events = vec![delta(
        json!({ "role": "assistant", "content": "", "refusal": null }),
        None,
    )];
    events.extend(
        pieces(&answer.text)
            .into_iter()
            .map(|text| delta(json!({ "content": text }), None)),
    );
    for (index, call) in answer.calls.iter().enumerate() {
        let mut start = tool_call(call, "");
        start["index"] = index.into();
        events.push(delta(json!({ "tool_calls": [start] }), None));
        events.extend(pieces(&call.arguments()).into_iter().map(|part| {
            let part = json!({ "index": index, "function": { "arguments": part } });
            delta(json!({ "tool_calls": [part] }), None)
        }));
    }
    events.push(delta(json!({}), Some(finish_reason(answer))));
    if include_usage {
        events.push(chunk(json!([]), Some(usage(answer))));
    }
    events.push(event("[DONE]"));
    events
}
