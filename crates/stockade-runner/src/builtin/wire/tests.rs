use serde_json::{Value, json};
use stockade_domain::{FailureClass, Wire};

use super::{Ask, Piece, assembler, encode, read};
use crate::builtin::{
    conversation::{Conversation, Entry, Reply, Stop, ToolResult},
    tools,
};

fn stream(wire: Wire, events: &[Value]) -> (Vec<Piece>, Result<Reply, super::WireError>) {
    let mut assembler = assembler(wire);
    let mut pieces = Vec::new();
    for event in events {
        match assembler.event(event) {
            Ok(more) => pieces.extend(more),
            Err(error) => return (pieces, Err(error)),
        }
    }
    (pieces, assembler.finish())
}

fn anthropic() -> Vec<Value> {
    vec![
        json!({"type":"message_start","message":{"content":[]}}),
        json!({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}),
        json!({"type":"ping"}),
        json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Let me "}}),
        json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"look."}}),
        json!({"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"bash","input":{}}}),
        json!({"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"command\":"}}),
        json!({"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"ls\"}"}}),
        json!({"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{}}),
        json!({"type":"message_stop"}),
    ]
}

fn chat() -> Vec<Value> {
    vec![
        json!({"choices":[{"delta":{"role":"assistant","content":"Let me "}}]}),
        json!({"choices":[{"delta":{"content":"look."}}]}),
        json!({"choices":[{"delta":{"tool_calls":[{"index":0,"id":"t1","function":{"name":"bash","arguments":"{\"command\":"}}]}}]}),
        json!({"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"ls\"}"}}]}}]}),
        json!({"choices":[{"delta":{},"finish_reason":"tool_calls"}]}),
        json!({"choices":[],"usage":{"total_tokens":3}}),
    ]
}

fn responses() -> Vec<Value> {
    let message = json!({"type":"message","id":"m1","content":[{"type":"output_text","text":"Let me look."}]});
    let call =
        json!({"type":"function_call","id":"f1","call_id":"t1","name":"bash","arguments":"{\"command\":\"ls\"}"});
    vec![
        json!({"type":"response.created","response":{}}),
        json!({"type":"response.output_text.delta","delta":"Let me "}),
        json!({"type":"response.output_text.delta","delta":"look."}),
        json!({"type":"response.output_item.done","item":message}),
        json!({"type":"response.output_item.done","item":call}),
        json!({"type":"response.completed","response":{"status":"completed","output":[message, call]}}),
    ]
}

const WIRES: [Wire; 3] = [Wire::AnthropicMessages, Wire::OpenaiChat, Wire::OpenaiResponses];

fn events(wire: Wire) -> Vec<Value> {
    match wire {
        Wire::AnthropicMessages => anthropic(),
        Wire::OpenaiChat => chat(),
        Wire::OpenaiResponses => responses(),
    }
}

#[test]
fn every_wire_streams_the_same_answer() {
    for wire in WIRES {
        let (pieces, reply) = stream(wire, &events(wire));
        let reply = reply.unwrap();
        assert_eq!(
            pieces,
            [Piece::Text("Let me ".into()), Piece::Text("look.".into())],
            "{wire:?}"
        );
        assert_eq!((reply.text.as_str(), &reply.stop), ("Let me look.", &Stop::Done));
        assert_eq!(reply.calls.len(), 1);
        let call = &reply.calls[0];
        assert_eq!((call.id.as_str(), call.name.as_str()), ("t1", "bash"));
        assert_eq!(call.input, Ok(json!({"command": "ls"})));
    }
}

#[test]
fn an_answer_that_breaks_off_is_transient_on_every_wire() {
    for wire in WIRES {
        let all = events(wire);
        let (_, reply) = stream(wire, &all[..3]);
        assert_eq!(reply.unwrap_err().class, FailureClass::Transient, "{wire:?}");
    }
}

#[test]
fn what_an_upstream_reports_inside_a_stream_has_a_class() {
    for (wire, event, class) in [
        (
            Wire::AnthropicMessages,
            json!({"type":"error","error":{"type":"overloaded_error","message":"busy"}}),
            FailureClass::Transient,
        ),
        (
            Wire::OpenaiChat,
            json!({"error":{"type":"invalid_request_error","message":"no"}}),
            FailureClass::Terminal,
        ),
        (
            Wire::OpenaiResponses,
            json!({"type":"response.failed","response":{"error":{"code":"server_error","message":"oops"}}}),
            FailureClass::Transient,
        ),
        (
            Wire::OpenaiResponses,
            json!({"type":"error","code":"rate_limit_exceeded","message":"slow down"}),
            FailureClass::Transient,
        ),
    ] {
        let (_, reply) = stream(wire, &[event]);
        assert_eq!(reply.unwrap_err().class, class, "{wire:?}");
    }
}

#[test]
fn broken_tool_input_is_kept_as_text_and_sent_back_as_an_object() {
    let mut all = anthropic();
    all.remove(7);
    all[7] = json!({"type":"message_delta","delta":{"stop_reason":"max_tokens"}});
    let (_, reply) = stream(Wire::AnthropicMessages, &all);
    let reply = reply.unwrap();
    assert_eq!(reply.stop, Stop::Length);
    assert_eq!(reply.calls[0].input, Err("{\"command\":".to_owned()));
    assert_eq!(reply.raw[1]["input"], json!({}));
}

#[test]
fn a_conversation_goes_back_in_every_wire_s_own_words() {
    let specs = tools::specs(&[]).unwrap();
    let ask = Ask {
        model: "m",
        system: "be good",
        tools: &specs,
        max_tokens: 10,
    };
    for wire in WIRES {
        let reply = stream(wire, &events(wire)).1.unwrap();
        let mut conversation = Conversation::default();
        conversation.user("do it");
        conversation.entries.push(Entry::Assistant(reply));
        conversation.entries.push(Entry::Results(vec![ToolResult {
            call: "t1".into(),
            text: "a.txt".into(),
            error: false,
        }]));
        conversation.user("hurry");
        let body = encode(wire, &ask, &conversation);
        assert_eq!((&body["model"], &body["stream"]), (&json!("m"), &json!(true)));
        assert_eq!(body["tools"].as_array().unwrap().len(), 6);
        match wire {
            Wire::AnthropicMessages => {
                let roles: Vec<&str> = roles(&body["messages"]);
                assert_eq!(roles, ["user", "assistant", "user"]);
                assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "t1");
                assert_eq!(body["messages"][2]["content"][1]["text"], "hurry");
            }
            Wire::OpenaiChat => {
                assert_eq!(
                    roles(&body["messages"]),
                    ["system", "user", "assistant", "tool", "user"]
                );
                let arguments = &body["messages"][2]["tool_calls"][0]["function"]["arguments"];
                assert_eq!(arguments, "{\"command\":\"ls\"}");
            }
            Wire::OpenaiResponses => {
                let kinds: Vec<&str> = body["input"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|i| i["type"].as_str().unwrap())
                    .collect();
                assert_eq!(
                    kinds,
                    ["message", "message", "function_call", "function_call_output", "message"]
                );
                assert!(
                    body["input"][2].get("id").is_none(),
                    "an id names what the provider has not kept"
                );
            }
        }
    }
}

fn roles(messages: &Value) -> Vec<&str> {
    messages
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect()
}

#[test]
fn whole_answers_read_like_streamed_ones() {
    let whole = json!({"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"});
    assert_eq!(read(Wire::AnthropicMessages, &whole).unwrap().text, "Hi");
    let whole = json!({"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]});
    assert_eq!(read(Wire::OpenaiChat, &whole).unwrap().text, "Hi");
    let part = json!({"type":"output_text","text":"Hi"});
    let whole = json!({"output":[{"type":"message","content":[part]}]});
    assert_eq!(read(Wire::OpenaiResponses, &whole).unwrap().text, "Hi");
    for wire in WIRES {
        assert!(read(wire, &json!({"hello": 1})).is_err(), "{wire:?}");
    }
}
