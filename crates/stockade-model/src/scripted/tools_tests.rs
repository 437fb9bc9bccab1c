use std::{collections::BTreeMap, process::Command};

use serde_json::json;

use super::*;

fn tool(name: &str, properties: &Value, required: &[&str]) -> OfferedTool {
    OfferedTool {
        name: name.to_owned(),
        namespace: None,
        properties: properties.as_object().unwrap().clone(),
        required: required.iter().map(|&r| r.to_owned()).collect(),
    }
}

fn call(tool: &str, input: &Value) -> Call {
    Call {
        tool: tool.to_owned(),
        input: input.as_object().unwrap().clone(),
        escalate: None,
        exact: BTreeMap::new(),
    }
}

fn codex() -> Vec<OfferedTool> {
    vec![tool(
        "exec_command",
        &json!({"cmd": {"type": "string"}, "sandbox_permissions": {}, "justification": {}}),
        &["cmd"],
    )]
}

fn got(call: &Call, offered: &[OfferedTool]) -> (String, Value) {
    let mapped = map(call, offered).unwrap();
    (mapped.name, Value::Object(mapped.input))
}

#[test]
fn a_write_becomes_what_each_client_calls_it() {
    let write = call("write", &json!({"path": "a.txt", "content": "x"}));
    let builtin = [tool("write_file", &json!({"path": {}, "content": {}}), &[])];
    let claude = [tool("Write", &json!({"file_path": {}, "content": {}}), &[])];
    let opencode = [tool("write", &json!({"filePath": {}, "content": {}}), &[])];
    assert_eq!(
        got(&write, &builtin),
        ("write_file".into(), json!({"path": "a.txt", "content": "x"}))
    );
    assert_eq!(
        got(&write, &claude),
        ("Write".into(), json!({"file_path": "a.txt", "content": "x"}))
    );
    assert_eq!(
        got(&write, &opencode),
        ("write".into(), json!({"filePath": "a.txt", "content": "x"}))
    );
}

#[test]
fn a_command_becomes_what_each_client_calls_it() {
    let bash = call("bash", &json!({"command": "ls"}));
    let described = [tool(
        "Bash",
        &json!({"command": {}, "description": {}}),
        &["command", "description"],
    )];
    let listed = [tool("shell", &json!({"command": {"type": "array"}}), &["command"])];
    assert_eq!(got(&bash, &codex()), ("exec_command".into(), json!({"cmd": "ls"})));
    assert_eq!(
        got(&bash, &described),
        ("Bash".into(), json!({"command": "ls", "description": "Scripted bash"}))
    );
    assert_eq!(
        got(&bash, &listed),
        ("shell".into(), json!({"command": ["sh", "-c", "ls"]}))
    );
}

#[test]
fn escalation_reaches_only_a_client_that_knows_it() {
    let mut bash = call("bash", &json!({"command": "ls"}));
    bash.escalate = Some("must leave".to_owned());
    assert_eq!(
        got(&bash, &codex()).1,
        json!({"cmd": "ls", "sandbox_permissions": "require_escalated", "justification": "must leave"})
    );
    let plain = [tool("bash", &json!({"command": {}}), &[])];
    assert_eq!(got(&bash, &plain).1, json!({"command": "ls"}));
}

#[test]
fn an_exact_call_wins_and_an_impossible_one_is_refused() {
    let mut fetch = call("fetch", &json!({"url": "u"}));
    let refused = map(&fetch, &codex()).unwrap_err().to_string();
    assert!(
        refused.contains("'fetch'") && refused.contains("exec_command"),
        "{refused}"
    );
    fetch.exact.insert(
        "exec_command".to_owned(),
        json!({"cmd": "curl u"}).as_object().unwrap().clone(),
    );
    assert_eq!(got(&fetch, &codex()), ("exec_command".into(), json!({"cmd": "curl u"})));
}

/// The shell commands that stand in for file tools do what the file tools would.
#[test]
fn file_tools_work_through_a_plain_shell() {
    let dir = tempfile::tempdir().unwrap();
    let run = |call: &Call| {
        let command = got(call, &codex()).1["cmd"].as_str().unwrap().to_owned();
        Command::new("sh")
            .arg("-c")
            .arg(command)
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let text = "it's \"quoted\" $HOME `x` \\n\nline two, no newline";
    let path = "new dir/it's.txt";
    assert!(
        run(&call("write", &json!({"path": path, "content": text})))
            .status
            .success()
    );
    assert_eq!(std::fs::read_to_string(dir.path().join(path)).unwrap(), text);
    let read = run(&call("read", &json!({"path": path})));
    assert_eq!(String::from_utf8(read.stdout).unwrap(), text);
    let edit = call(
        "edit",
        &json!({"path": path, "old": "\\n\nline two", "new": "and & more\\t"}),
    );
    assert!(run(&edit).status.success());
    assert_eq!(
        std::fs::read_to_string(dir.path().join(path)).unwrap(),
        "it's \"quoted\" $HOME `x` and & more\\t, no newline"
    );
    assert!(!run(&edit).status.success(), "what is not there cannot be replaced");
    assert_eq!(
        std::fs::read_dir(dir.path().join("new dir")).unwrap().count(),
        1,
        "no draft stays behind"
    );
}
