use serde_json::{Value, json};

use super::*;

fn provider(yaml: &str) -> ScriptedProvider {
    ScriptedProvider::new(Script::parse(yaml).unwrap())
}

fn tools(wire: Wire) -> Value {
    let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}});
    match wire {
        Wire::AnthropicMessages => json!([{"name": "bash", "input_schema": schema}]),
        Wire::OpenaiChat => json!([{"type": "function", "function": {"name": "bash", "parameters": schema}}]),
        Wire::OpenaiResponses => json!([{"type": "function", "name": "bash", "parameters": schema}]),
    }
}

fn body(wire: Wire, stream: bool, tooled: bool) -> Value {
    let list = if wire == Wire::OpenaiResponses {
        "input"
    } else {
        "messages"
    };
    let mut body = json!({ "model": "any", "stream": stream, list: [{"role": "user", "content": "go"}] });
    if tooled {
        body["tools"] = tools(wire);
    }
    body
}

async fn ask(provider: &ScriptedProvider, wire: Wire, body: &Value) -> (StatusCode, HeaderMap, String) {
    let request = ModelRequest {
        wire,
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_string()),
    };
    let response = provider.call(request).await.unwrap();
    let pieces: Vec<_> = response.body.map(|piece| piece.unwrap()).collect().await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    (response.status, response.headers, text)
}

/// The data of every event, the names checked against the data where the wire has both.
fn data(stream: &str) -> Vec<Value> {
    stream
        .split_terminator("\n\n")
        .filter_map(|event| {
            let line = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            if line == "[DONE]" {
                return None;
            }
            let data: Value = serde_json::from_str(line).unwrap();
            if let Some(name) = event.lines().find_map(|line| line.strip_prefix("event: ")) {
                assert_eq!(data["type"], name);
            }
            Some(data)
        })
        .collect()
}

const SCRIPT: &str = "turns:\n- say: I look at the test first, then decide.\n  call: [{tool: bash, input: {command: 'sh test.sh'}}, {tool: bash, input: {command: ls}}]\n  usage: {input: 900, output: 40, cache_read: 100}\n- say: Done.\n";

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn anthropic_streams_the_answer_it_would_give_whole() {
    let provider = provider(SCRIPT);
    let wire = Wire::AnthropicMessages;
    let (status, headers, text) = ask(&provider, wire, &body(wire, true, true)).await;
    assert_eq!(status, 200);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let events = data(&text);
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let shape = [
        &["message_start", "ping"][..],
        &block,
        &block,
        &block,
        &["message_delta", "message_stop"],
    ];
    assert_eq!(kinds(&events), shape.concat());
    let (_, _, whole) = ask(&provider, wire, &body(wire, false, true)).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let said: String = events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"][0]["text"], said);
    let input: String = events
        .iter()
        .filter(|e| e["index"] == 1)
        .filter_map(|e| e["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&input).unwrap(),
        whole["content"][1]["input"]
    );
    assert_eq!(whole["stop_reason"], "tool_use");
    let last = &events[events.len() - 2];
    assert_eq!(last["usage"], whole["usage"]);
    assert_eq!(last["usage"]["cache_read_input_tokens"], 100);
}

#[tokio::test]
async fn chat_streams_deltas_and_usage_only_where_asked() {
    let provider = provider(SCRIPT);
    let wire = Wire::OpenaiChat;
    let (_, _, text) = ask(&provider, wire, &body(wire, true, true)).await;
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(data(&text).iter().all(|chunk| chunk.get("usage").is_none()));
    let mut asked = body(wire, true, true);
    asked["stream_options"] = json!({"include_usage": true});
    let (_, _, text) = ask(&provider, wire, &asked).await;
    let chunks = data(&text);
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        (&last["usage"]["prompt_tokens"], &last["usage"]["completion_tokens"]),
        (&json!(1000), &json!(40))
    );
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(rest[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let arguments: String = rest
        .iter()
        .filter_map(|c| c.pointer("/choices/0/delta/tool_calls/0"))
        .filter(|call| call["index"] == 0)
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, r#"{"command":"sh test.sh"}"#);
    let (_, _, whole) = ask(&provider, wire, &body(wire, false, true)).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(
        whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"],
        arguments
    );
    assert_eq!(whole["usage"], last["usage"]);
}

#[tokio::test]
async fn responses_streams_numbered_events_that_end_in_the_whole_answer() {
    let provider = provider(SCRIPT);
    let wire = Wire::OpenaiResponses;
    let (_, _, text) = ask(&provider, wire, &body(wire, true, true)).await;
    let events = data(&text);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let shape = [
        &["response.created", "response.in_progress", "response.output_item.added"][..],
        &[
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
        ],
        &["response.content_part.done", "response.output_item.done"],
        &call,
        &call,
        &["response.completed"],
    ];
    assert_eq!(kinds(&events), shape.concat());
    let completed = &events.last().unwrap()["response"];
    let items: Vec<&Value> = events
        .iter()
        .filter(|e| e["type"] == "response.output_item.done")
        .map(|e| &e["item"])
        .collect();
    assert_eq!(
        completed["output"].as_array().unwrap().iter().collect::<Vec<_>>(),
        items
    );
    assert_eq!(completed["usage"]["total_tokens"], 1040);
    let (_, _, whole) = ask(&provider, wire, &body(wire, false, true)).await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["output"], completed["output"]);
}

#[tokio::test]
async fn requests_without_tools_take_no_turn() {
    let provider = provider("untooled: A title\nturns:\n- say: first\n");
    for wire in [Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses] {
        let (_, _, title) = ask(&provider, wire, &body(wire, false, false)).await;
        assert!(title.contains("A title") && !title.contains("first"), "{title}");
        let (_, _, turn) = ask(&provider, wire, &body(wire, false, true)).await;
        assert!(turn.contains("first"), "{turn}");
    }
}

#[tokio::test]
async fn errors_are_given_as_often_as_told() {
    let provider = provider("turns:\n- error: {status: 529, retry_after: 1, times: 2}\n- say: now\n");
    let wire = Wire::AnthropicMessages;
    let request = body(wire, true, true);
    for _ in 0..2 {
        let (status, headers, text) = ask(&provider, wire, &request).await;
        assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (529, "1"));
        assert!(text.contains("overloaded_error"), "{text}");
    }
    assert_eq!(ask(&provider, wire, &request).await.0, 200);
    let mut other = request.clone();
    other["messages"][0]["content"] = "another conversation".into();
    assert_eq!(
        ask(&provider, wire, &other).await.0,
        529,
        "each conversation has its own count"
    );
}

#[tokio::test]
async fn a_used_up_script_is_an_error_and_so_is_an_impossible_tool() {
    let exhausted = provider("turns: []\n");
    let impossible = provider("turns:\n- call: [{tool: fetch, input: {url: u}}]\n");
    for wire in [Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses] {
        let (status, _, text) = ask(&exhausted, wire, &body(wire, true, true)).await;
        assert_eq!(status, 400);
        assert!(text.contains("no turn left"), "{text}");
        let (status, _, text) = ask(&impossible, wire, &body(wire, true, true)).await;
        assert_eq!(status, 400);
        assert!(text.contains("turn 1") && text.contains("fetch"), "{text}");
        let (status, _, _) = ask(&exhausted, wire, &json!({"model": "m"})).await;
        assert_eq!(status, 400);
    }
}
