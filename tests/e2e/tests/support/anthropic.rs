//! Answers of an Anthropic Messages server, for tests of the way to a real provider.

use serde_json::{Value, json};

use super::web::{Answer, Seen};

/// The model says something and ends its turn.
pub(crate) fn says(request: &Seen, words: &str) -> Answer {
    message(request, json!({ "type": "text", "text": words }), "end_turn")
}

/// The model uses a tool.
pub(crate) fn calls(request: &Seen, id: &str, tool: &str, input: Value) -> Answer {
    message(
        request,
        json!({ "type": "tool_use", "id": id, "name": tool, "input": input }),
        "tool_use",
    )
}

/// An error in the provider's own words.
pub(crate) fn fails(status: u16, kind: &str) -> Answer {
    let body = json!({ "type": "error", "error": { "type": kind, "message": format!("scripted {kind}") } });
    Answer::new(status, "application/json", body.to_string())
}

fn message(request: &Seen, block: Value, stop: &str) -> Answer {
    let asked = request.json();
    let whole = json!({
        "id": "msg_e2e", "type": "message", "role": "assistant", "model": asked["model"], "content": [block],
        "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": 1000, "output_tokens": 50 },
    });
    if asked["stream"] == true {
        return Answer::new(200, "text/event-stream", stream(whole, &block));
    }
    Answer::new(200, "application/json", whole.to_string())
}

/// The same message as the events of a stream.
fn stream(mut whole: Value, block: &Value) -> String {
    let stop = whole["stop_reason"].take();
    whole["content"] = json!([]);
    whole["usage"]["output_tokens"] = json!(1);
    let (start, delta) = if block["type"] == "text" {
        (
            json!({ "type": "text", "text": "" }),
            json!({ "type": "text_delta", "text": block["text"] }),
        )
    } else {
        let start = json!({ "type": "tool_use", "id": block["id"], "name": block["name"], "input": {} });
        (
            start,
            json!({ "type": "input_json_delta", "partial_json": block["input"].to_string() }),
        )
    };
    let events = [
        json!({ "type": "message_start", "message": whole }),
        json!({ "type": "content_block_start", "index": 0, "content_block": start }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null }, "usage": { "output_tokens": 50 } }),
        json!({ "type": "message_stop" }),
    ];
    events
        .iter()
        .map(|event| {
            format!(
                "event: {}\ndata: {event}\n\n",
                event["type"].as_str().unwrap_or_default()
            )
        })
        .collect()
}
