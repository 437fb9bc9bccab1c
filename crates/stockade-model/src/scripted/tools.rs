//! One script for several clients: a script's tool calls in the words of the tools offered.
//!
//! Clients name the same tools differently (`write_file {path}`, `Write {file_path}`,
//! `write {filePath}`), and some offer only a shell. A call is put into the client's words
//! by the names and the schema the client itself sent, so a client that renames its tools
//! needs no change here as long as the new name is a known one.

use serde_json::{Map, Value};

use super::{conversation::OfferedTool, file::Call};

/// A call in the client's words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MappedCall {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) input: Map<String, Value>,
}

/// No offered tool can do what the script asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the script calls tool '{tool}', and the client offers nothing that does it (offered: {offered}); use an offered name, or add one under 'exact'"
)]
pub(crate) struct NoSuchTool {
    tool: String,
    offered: String,
}

/// Names under which clients offer the same tool; the first is the script's own word.
const TOOLS: &[&[&str]] = &[
    &[
        "bash",
        "Bash",
        "exec_command",
        "shell",
        "shell_command",
        "local_shell",
        "run_shell_command",
        "run_command",
        "execute_command",
    ],
    &["write", "write_file", "Write", "create_file", "write_to_file"],
    &["edit", "edit_file", "Edit", "replace", "str_replace"],
    &["read", "read_file", "Read", "view_file"],
    &["list", "list_files", "LS", "ls", "list_directory"],
    &["search", "Grep", "grep", "search_file_content", "grep_search"],
    &["fetch", "WebFetch", "webfetch", "web_fetch", "fetch_url"],
];

/// Names under which tools take the same input; the first is the script's own word.
const INPUTS: &[&[&str]] = &[
    &["command", "cmd"],
    &["path", "file_path", "filePath", "absolute_path", "filename", "file"],
    &["content", "contents", "file_text", "text"],
    &["old", "old_string", "oldString", "old_str", "old_text"],
    &["new", "new_string", "newString", "new_str", "new_text"],
    &["all", "replace_all", "replaceAll"],
    &["pattern", "query"],
];

fn same<'a>(groups: &'a [&'a [&'a str]], name: &str) -> &'a [&'a str] {
    groups
        .iter()
        .find(|group| group.contains(&name))
        .copied()
        .unwrap_or(&[])
}

/// Puts a call into the words of the tools offered.
pub(crate) fn map(call: &Call, offered: &[OfferedTool]) -> Result<MappedCall, NoSuchTool> {
    let by_name = |name: &str| offered.iter().find(|tool| tool.name == name);
    for (name, input) in &call.exact {
        if let Some(tool) = by_name(name) {
            return Ok(mapped(tool, input.clone()));
        }
    }
    let direct = by_name(&call.tool).or_else(|| same(TOOLS, &call.tool).iter().find_map(|name| by_name(name)));
    if let Some(tool) = direct {
        return Ok(fill(tool, call.input.clone(), call));
    }
    let shell = TOOLS[0].iter().find_map(|name| by_name(name));
    if let (Some(shell), Some(command)) = (shell, as_command(call)) {
        let input = Map::from_iter([("command".to_owned(), Value::String(command))]);
        return Ok(fill(shell, input, call));
    }
    Err(NoSuchTool {
        tool: call.tool.clone(),
        offered: offered
            .iter()
            .map(|tool| tool.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

fn mapped(tool: &OfferedTool, input: Map<String, Value>) -> MappedCall {
    MappedCall {
        name: tool.name.clone(),
        namespace: tool.namespace.clone(),
        input,
    }
}

/// Renames inputs to the tool's own, and adds what the tool cannot do without.
fn fill(tool: &OfferedTool, input: Map<String, Value>, call: &Call) -> MappedCall {
    let knows = |name: &str| tool.properties.contains_key(name);
    let mut own = Map::new();
    for (name, value) in input {
        let name = if knows(&name) {
            name
        } else {
            let synonyms = same(INPUTS, &name);
            synonyms.iter().find(|s| knows(s)).map_or(name, |&s| s.to_owned())
        };
        let value = as_declared(value, tool.properties.get(&name));
        own.insert(name, value);
    }
    if tool.required.iter().any(|name| name == "description") && !own.contains_key("description") {
        own.insert(
            "description".to_owned(),
            Value::String(format!("Scripted {}", call.tool)),
        );
    }
    if let Some(why) = &call.escalate
        && knows("sandbox_permissions")
    {
        own.insert("sandbox_permissions".to_owned(), "require_escalated".into());
        own.insert("justification".to_owned(), why.as_str().into());
    }
    mapped(tool, own)
}

/// A command line for a tool that wants a list of arguments.
fn as_declared(value: Value, schema: Option<&Value>) -> Value {
    match value {
        Value::String(command) if schema.is_some_and(|schema| schema["type"] == "array") => {
            serde_json::json!(["sh", "-c", command])
        }
        value => value,
    }
}

/// A file tool as a POSIX shell command, for clients that offer only a shell.
fn as_command(call: &Call) -> Option<String> {
    let text = |word: &str| {
        same(INPUTS, word)
            .iter()
            .find_map(|name| call.input.get(*name))
            .and_then(Value::as_str)
    };
    let path = quote(text("path")?);
    match *same(TOOLS, &call.tool).first()? {
        "write" => {
            let parent = text("path")?.rsplit_once('/').map(|(parent, _)| parent);
            let parent = parent.filter(|parent| !parent.is_empty());
            let make_parent = parent.map(|parent| format!("mkdir -p -- {} && ", quote(parent)));
            let content = quote(text("content")?);
            Some(format!(
                "{}printf '%s' {content} > {path}",
                make_parent.unwrap_or_default()
            ))
        }
        // No `rm -f`: Codex refuses commands that force a removal.
        "edit" => Some(format!(
            "OLD={} NEW={} awk 'BEGIN {{ RS = \"\\001\"; ORS = \"\"; old = ENVIRON[\"OLD\"]; new = ENVIRON[\"NEW\"] }} \
             {{ at = index($0, old); if (!at) exit 3; print substr($0, 1, at - 1) new substr($0, at + length(old)) }}' \
             {path} > {path}.new && cat {path}.new > {path}; ok=$?; rm {path}.new; [ $ok = 0 ]",
            quote(text("old")?),
            quote(text("new")?)
        )),
        "read" => Some(format!("cat -- {path}")),
        "list" => Some(format!("ls -la -- {path}")),
        _ => None,
    }
}

/// Quotes a word for a POSIX shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;
