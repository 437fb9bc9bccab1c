//! A model that gives the answers it was told to, in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use stockade_domain::Wire;
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse};

/// One answer.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Words, then tools to use: name and input.
    Says(&'static str, Vec<(&'static str, Value)>),
    /// An HTTP error.
    Status(u16),
    /// A stream that breaks off.
    Cut,
    /// Nothing, for ever.
    Silence,
}

/// The answers left, and the requests so far.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    left: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Answers {
    pub(crate) fn of(answers: Vec<Answer>) -> Self {
        Self {
            left: Arc::new(Mutex::new(answers.into())),
            asked: Arc::default(),
        }
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn sse(events: &[Value]) -> Vec<Result<Bytes, ModelError>> {
    events
        .iter()
        .map(|event| {
            Ok(Bytes::from(format!(
                "event: {}\ndata: {event}\n\n",
                event["type"].as_str().unwrap()
            )))
        })
        .collect()
}

fn says(words: &str, tools: &[(&str, Value)]) -> Vec<Value> {
    let mut events = vec![
        json!({"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"output_tokens":1}}}),
        json!({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}),
        json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":words}}),
        json!({"type":"content_block_stop","index":0}),
    ];
    for (index, (name, input)) in (1..).zip(tools) {
        let id = format!("call{index}");
        events.push(json!({
            "type":"content_block_start","index":index,"content_block":{"type":"tool_use","id":id,"name":name,"input":{}}
        }));
        events.push(json!({
            "type":"content_block_delta","index":index,"delta":{"type":"input_json_delta","partial_json":input.to_string()}
        }));
        events.push(json!({"type":"content_block_stop","index":index}));
    }
    let stop = if tools.is_empty() { "end_turn" } else { "tool_use" };
    events.push(json!({"type":"message_delta","delta":{"stop_reason":stop},"usage":{"output_tokens":5}}));
    events.push(json!({"type":"message_stop"}));
    events
}

#[async_trait]
impl ModelProvider for Answers {
    fn name(&self) -> &str {
        "answers"
    }

    fn wires(&self) -> &[Wire] {
        &[Wire::AnthropicMessages]
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        self.asked
            .lock()
            .unwrap()
            .push(serde_json::from_slice(&request.body).unwrap());
        let answer = self
            .left
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Answer::Says("Done.", Vec::new()));
        let mut status = StatusCode::OK;
        let pieces = match answer {
            Answer::Says(words, tools) => sse(&says(words, &tools)),
            Answer::Cut => sse(&says("half an answ", &[])[..3]),
            Answer::Status(code) => {
                status = StatusCode::from_u16(code).unwrap();
                vec![Ok(Bytes::from(
                    json!({"error":{"message":"the upstream says no"}}).to_string(),
                ))]
            }
            Answer::Silence => std::future::pending().await,
        };
        let mut headers = HeaderMap::new();
        let kind = if status.is_success() {
            "text/event-stream"
        } else {
            "application/json"
        };
        headers.insert("content-type", HeaderValue::from_static(kind));
        Ok(ModelResponse {
            status,
            headers,
            body: futures::stream::iter(pieces).boxed(),
        })
    }
}
