//! What a request of any wire says, as far as a script looks at it.

use serde_json::{Map, Value};
use stockade_domain::Wire;

/// A request in one shape for the three wires.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conversation {
    pub(crate) stream: bool,
    /// Chat only: whether the client wants a last chunk with the usage.
    pub(crate) include_usage: bool,
    pub(crate) tools: Vec<OfferedTool>,
    /// The schema the answer must follow, for structured output.
    pub(crate) schema: Option<Value>,
    pub(crate) items: Vec<Item>,
}

/// A tool the client offers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OfferedTool {
    pub(crate) name: String,
    /// Responses only: the namespace it stands in.
    pub(crate) namespace: Option<String>,
    pub(crate) properties: Map<String, Value>,
    pub(crate) required: Vec<String>,
}

/// One step of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    User(String),
    Assistant { text: String, calls: Vec<String> },
    ToolResult(String),
}

/// Why a body is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body has no '{0}' list")]
    Missing(&'static str),
}

impl Conversation {
    pub(crate) fn read(wire: Wire, body: &[u8]) -> Result<Self, Unreadable> {
        let body: Value = serde_json::from_slice(body).map_err(|e| Unreadable::NotJson(e.to_string()))?;
        let mut reader = Reader::default();
        match wire {
            Wire::AnthropicMessages => reader.anthropic(&body)?,
            Wire::OpenaiChat => reader.chat(&body)?,
            Wire::OpenaiResponses => reader.responses(&body)?,
        }
        Ok(Self {
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            tools: reader.tools,
            schema: schema(&body),
            items: reader.items,
        })
    }

    /// How often the model has spoken.
    pub(crate) fn steps(&self) -> usize {
        self.items
            .iter()
            .filter(|item| matches!(item, Item::Assistant { .. }))
            .count()
    }

    /// What people said since the model's last final answer.
    pub(crate) fn request(&self) -> String {
        let since = self
            .items
            .iter()
            .rposition(|item| matches!(item, Item::Assistant { calls, .. } if calls.is_empty()))
            .map_or(0, |at| at + 1);
        join(self.items[since..].iter().filter_map(|item| match item {
            Item::User(text) => Some(text.as_str()),
            _ => None,
        }))
    }

    /// The tool results since the model last spoke.
    pub(crate) fn last_tool_result(&self) -> String {
        let since = self
            .items
            .iter()
            .rposition(|item| matches!(item, Item::Assistant { .. }))
            .map_or(0, |at| at + 1);
        join(self.items[since..].iter().filter_map(|item| match item {
            Item::ToolResult(text) => Some(text.as_str()),
            _ => None,
        }))
    }
}

fn join<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}

/// The schema of structured output, wherever the wire keeps it.
fn schema(body: &Value) -> Option<Value> {
    [
        "/response_format/json_schema/schema",
        "/text/format/schema",
        "/output_config/format/schema",
        "/output_format/schema",
    ]
    .iter()
    .find_map(|at| body.pointer(at))
    .filter(|schema| schema.is_object())
    .cloned()
}

#[derive(Default)]
struct Reader {
    items: Vec<Item>,
    tools: Vec<OfferedTool>,
}

impl Reader {
    fn user(&mut self, text: String) {
        if !text.is_empty() {
            self.items.push(Item::User(text));
        }
    }

    /// Pieces of one answer may come as several entries; they are one step.
    fn assistant(&mut self, text: &str, calls: impl IntoIterator<Item = String>) {
        if let Some(Item::Assistant { text: said, calls: had }) = self.items.last_mut() {
            said.push_str(text);
            had.extend(calls);
            return;
        }
        self.items.push(Item::Assistant {
            text: text.to_owned(),
            calls: calls.into_iter().collect(),
        });
    }

    fn tool(&mut self, tool: &Value, schema_key: &str, namespace: Option<&str>) {
        let Some(name) = tool["name"].as_str() else { return };
        let schema = &tool[schema_key];
        self.tools.push(OfferedTool {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            properties: schema["properties"].as_object().cloned().unwrap_or_default(),
            required: texts(&schema["required"]),
        });
    }

    fn anthropic(&mut self, body: &Value) -> Result<(), Unreadable> {
        for tool in list(&body["tools"]) {
            self.tool(tool, "input_schema", None);
        }
        let messages = body["messages"].as_array().ok_or(Unreadable::Missing("messages"))?;
        for message in messages {
            let content = &message["content"];
            match message["role"].as_str() {
                Some("assistant") => {
                    let calls = list(content)
                        .filter(|block| block["type"] == "tool_use")
                        .filter_map(|block| block["id"].as_str().map(str::to_owned));
                    self.assistant(&flat(content), calls);
                }
                Some("user") => {
                    for block in list(content).filter(|block| block["type"] == "tool_result") {
                        self.items.push(Item::ToolResult(flat(&block["content"])));
                    }
                    self.user(flat(content));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn chat(&mut self, body: &Value) -> Result<(), Unreadable> {
        for tool in list(&body["tools"]) {
            self.tool(&tool["function"], "parameters", None);
        }
        let messages = body["messages"].as_array().ok_or(Unreadable::Missing("messages"))?;
        for message in messages {
            let text = flat(&message["content"]);
            match message["role"].as_str() {
                Some("assistant") => {
                    let calls = list(&message["tool_calls"]).filter_map(|call| call["id"].as_str().map(str::to_owned));
                    self.assistant(&text, calls);
                }
                Some("tool") => self.items.push(Item::ToolResult(text)),
                Some("user") => self.user(text),
                _ => {}
            }
        }
        Ok(())
    }

    fn responses(&mut self, body: &Value) -> Result<(), Unreadable> {
        self.response_tools(&body["tools"], None);
        match &body["input"] {
            Value::String(text) => self.user(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| self.response_item(item)),
            _ => return Err(Unreadable::Missing("input")),
        }
        Ok(())
    }

    fn response_tools(&mut self, tools: &Value, namespace: Option<&str>) {
        for tool in list(tools) {
            if tool["type"] == "namespace" {
                self.response_tools(&tool["tools"], tool["name"].as_str());
            } else {
                self.tool(tool, "parameters", namespace);
            }
        }
    }

    fn response_item(&mut self, item: &Value) {
        match item["type"].as_str().unwrap_or("message") {
            "message" => match item["role"].as_str() {
                Some("assistant") => self.assistant(&flat(&item["content"]), None),
                Some("user") => self.user(flat(&item["content"])),
                _ => {}
            },
            "function_call" | "custom_tool_call" | "local_shell_call" => {
                self.assistant("", item["call_id"].as_str().map(str::to_owned));
            }
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                self.items.push(Item::ToolResult(flat(&item["output"])));
            }
            "additional_tools" => self.response_tools(&item["tools"], None),
            _ => {}
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    list(value)
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// The text of a content that is a string, a list of parts, or an object that holds one.
fn flat(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => join(parts.iter().filter_map(|part| part["text"].as_str())),
        Value::Object(_) => flat(&content["content"]),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(wire: Wire, body: &Value) -> Conversation {
        Conversation::read(wire, body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_same_conversation_reads_the_same_on_every_wire() {
        let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]});
        let anthropic = read(
            Wire::AnthropicMessages,
            &json!({
            "stream": true, "tools": [{"name": "bash", "input_schema": schema}],
            "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {"role": "system", "content": "a reminder"},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "look"}, {"type": "tool_use", "id": "c1", "name": "bash", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "out"}]}]}
            ]}),
        );
        let chat = read(
            Wire::OpenaiChat,
            &json!({
            "stream": true, "tools": [{"type": "function", "function": {"name": "bash", "parameters": schema}}],
            "messages": [
                {"role": "system", "content": "be brief"}, {"role": "user", "content": "go"},
                {"role": "assistant", "content": "look", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "out"}
            ]}),
        );
        let responses = read(
            Wire::OpenaiResponses,
            &json!({
            "stream": true, "tools": [{"type": "function", "name": "bash", "parameters": schema}],
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
                {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "look"}]},
                {"type": "function_call", "call_id": "c1", "name": "bash", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "out"}
            ]}),
        );
        assert_eq!(anthropic, chat);
        assert_eq!(anthropic, responses);
        assert_eq!(chat.steps(), 1);
        assert_eq!(chat.request(), "go");
        assert_eq!(chat.last_tool_result(), "out");
        assert_eq!(chat.tools[0].required, ["command"]);
    }

    #[test]
    fn tools_may_stand_in_namespaces_and_in_the_input() {
        let conversation = read(
            Wire::OpenaiResponses,
            &json!({"input": [{"type": "additional_tools", "tools": [
                {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}]}]}),
        );
        assert_eq!(conversation.tools[0].name, "exec");
        assert_eq!(conversation.tools[0].namespace.as_deref(), Some("functions"));
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        let refused = |body: &str| Conversation::read(Wire::OpenaiChat, body.as_bytes()).unwrap_err();
        assert!(matches!(refused("{"), Unreadable::NotJson(_)));
        assert_eq!(refused("{}"), Unreadable::Missing("messages"));
    }
}
