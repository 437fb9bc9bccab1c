//! Agents that speak ACP, made of a few lines of shell.

use std::collections::BTreeMap;

use stockade_domain::{AgentKind, HarnessProfile, ProfileFile, Wire};

/// Functions every such agent has. `open` answers up to the first prompt.
const PRELUDE: &str = r#"
say() { printf '%s\n' "$1"; }
hear() { IFS= read -r line || exit 0; id=${line#*\"id\":}; id=${id%%,*}; }
reply() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}"; }
update() { say "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"s1\",\"update\":$1}}"; }
words() { update "{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"$1\"}}"; }
tool() { update "{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"$1\",\"title\":\"run $2\",\"kind\":\"execute\",\"status\":\"in_progress\",\"rawInput\":{\"command\":\"$2\"}}"; }
done_tool() { update "{\"sessionUpdate\":\"tool_call_update\",\"toolCallId\":\"$1\",\"status\":\"completed\",\"content\":[{\"type\":\"content\",\"content\":{\"type\":\"text\",\"text\":\"ok\"}}]}"; }
ask() { say "{\"jsonrpc\":\"2.0\",\"id\":\"q$1\",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"s1\",\"toolCall\":{\"toolCallId\":\"$1\"},\"options\":[{\"optionId\":\"always\",\"kind\":\"allow_always\",\"name\":\"Always\"},{\"optionId\":\"yes\",\"kind\":\"allow_once\",\"name\":\"Yes\"},{\"optionId\":\"no\",\"kind\":\"reject_once\",\"name\":\"No\"}]}}"; }
open() {
  hear; reply '{"protocolVersion":1,"agentInfo":{"name":"fake","version":"1"},"agentCapabilities":{}}'
  hear; reply '{"sessionId":"s1"}'
  hear; prompt=$id
}
finish() { id=$prompt; reply '{"stopReason":"end_turn"}'; }
"#;

/// An agent with this script.
pub(crate) fn agent(script: &str) -> AgentKind {
    with_files(script, false)
}

/// The same, with the client's files offered.
pub(crate) fn with_files(script: &str, offer_fs: bool) -> AgentKind {
    AgentKind::Harness(HarnessProfile {
        command: vec!["sh".into(), "${HOME}/agent.sh".into(), "${MODEL}".into()],
        env: BTreeMap::from([("LLM".into(), "${LLM_URL}".into())]),
        files: vec![ProfileFile {
            path: "${HOME}/agent.sh".into(),
            content: format!("{PRELUDE}\n{script}"),
        }],
        wire: Wire::AnthropicMessages,
        offer_fs,
        requires: Vec::new(),
        install: String::new(),
    })
}
