//! What models are told about the tools, and the checks on what they ask.

use serde_json::{Map, Value, json};
use stockade_domain::Failure;

use super::path;

/// Longest time a command may be given, in seconds.
pub(super) const LONGEST_COMMAND: u64 = 600;
/// Time a command is given, in seconds, when the model names none.
pub(super) const USUAL_COMMAND: u64 = 120;
/// Most bytes of one tool's whole input.
const INPUT_LIMIT: usize = 1 << 20;

/// One tool.
#[derive(Debug, Clone)]
pub(crate) struct ToolSpec {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// JSON Schema of the input.
    pub(crate) schema: Value,
}

/// The tools of that name; all of them when no names are given.
pub(crate) fn specs(names: &[String]) -> Result<Vec<ToolSpec>, Failure> {
    let all = all();
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|spec| spec.name == name.as_str()))
    {
        let known: Vec<&str> = all.iter().map(|spec| spec.name).collect();
        return Err(Failure::terminal(
            "agent_invalid",
            format!("the agent names a tool '{unknown}' that does not exist"),
        )
        .with_hint(format!("the built-in tools are {}", known.join(", "))));
    }
    Ok(all
        .into_iter()
        .filter(|spec| names.is_empty() || names.iter().any(|name| name == spec.name))
        .collect())
}

fn all() -> Vec<ToolSpec> {
    let path = || json!({ "type": "string", "description": "Path, relative to /workspace or absolute." });
    vec![
        ToolSpec {
            name: "bash",
            description: "Runs a command line in a shell inside the sandbox, starting in /workspace. Each call is a new \
                shell: a changed directory or variable does not carry over. Output and errors come together; long output \
                loses its middle. Nothing answers prompts, so use flags that need no input. A process left in the \
                background ends with the call.",
            schema: object(
                json!({
                    "command": { "type": "string", "description": "The command line." },
                    "timeout_seconds": {
                        "type": "integer", "minimum": 1, "maximum": LONGEST_COMMAND,
                        "description": "Ends the command after so many seconds; 120 unless given.",
                    },
                }),
                &["command"],
            ),
        },
        ToolSpec {
            name: "read_file",
            description: "Reads a text file. For a long file, name the first line and how many lines you want.",
            schema: object(
                json!({
                    "path": path(),
                    "offset": { "type": "integer", "minimum": 1, "description": "First line, counted from 1." },
                    "limit": { "type": "integer", "minimum": 1, "description": "Most lines." },
                }),
                &["path"],
            ),
        },
        ToolSpec {
            name: "write_file",
            description: "Writes a whole file, making its directories; what was there is replaced. To change part of a \
                file use edit_file.",
            schema: object(
                json!({ "path": path(), "content": { "type": "string", "description": "The whole content." } }),
                &["path", "content"],
            ),
        },
        ToolSpec {
            name: "edit_file",
            description: "Replaces text in a file. old_string must stand in the file exactly once, spaces and line breaks \
                included; add lines around it until it does, or set replace_all.",
            schema: object(
                json!({
                    "path": path(),
                    "old_string": { "type": "string", "description": "The text to replace." },
                    "new_string": { "type": "string", "description": "The text to put there." },
                    "replace_all": { "type": "boolean", "description": "Replace every occurrence." },
                }),
                &["path", "old_string", "new_string"],
            ),
        },
        ToolSpec {
            name: "list_files",
            description: "Lists files below a directory, leaving out what git ignores. A pattern such as '*.rs' or \
                'src/**/*.ts' narrows the list.",
            schema: object(
                json!({
                    "path": path(),
                    "pattern": { "type": "string", "description": "Glob: '*' within a name, '**' across directories." },
                }),
                &[],
            ),
        },
        ToolSpec {
            name: "search",
            description: "Searches the contents of files for a POSIX extended regular expression, leaving out what git \
                ignores. Answers with path:line:text.",
            schema: object(
                json!({
                    "pattern": { "type": "string", "description": "The regular expression." },
                    "path": path(),
                    "glob": { "type": "string", "description": "Only files with such names, for example '*.py'." },
                    "ignore_case": { "type": "boolean" },
                }),
                &["pattern"],
            ),
        },
    ]
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

impl ToolSpec {
    /// The input as an action carries it: known fields of the right kind, paths in one
    /// spelling, so that equal calls are equal actions and rules see one name per file.
    pub(super) fn checked(&self, input: &Value) -> Result<Value, String> {
        let fields = input.as_object().ok_or("the input is not an object")?;
        let properties = self.schema["properties"].as_object().ok_or("the tool has no schema")?;
        let mut args = Map::new();
        let mut size = 0;
        for (key, schema) in properties {
            let Some(value) = fields.get(key).filter(|value| !value.is_null()) else {
                continue;
            };
            size += value.as_str().map_or(8, str::len);
            args.insert(key.clone(), checked_field(key, schema, value)?);
        }
        if size > INPUT_LIMIT {
            return Err(format!("the input is larger than {INPUT_LIMIT} bytes"));
        }
        for required in self.schema["required"].as_array().into_iter().flatten() {
            let key = required.as_str().unwrap_or_default();
            if !args.contains_key(key) {
                return Err(format!("'{key}' is missing"));
            }
        }
        if let Some(unknown) = fields.keys().find(|key| !properties.contains_key(*key)) {
            return Err(format!("'{unknown}' is not a field of {}", self.name));
        }
        Ok(Value::Object(args))
    }
}

fn checked_field(key: &str, schema: &Value, value: &Value) -> Result<Value, String> {
    match schema["type"].as_str() {
        Some("string") => {
            let text = value.as_str().ok_or_else(|| format!("'{key}' is not a text"))?;
            if text.contains('\0') {
                return Err(format!("'{key}' holds a NUL character"));
            }
            if key == "path" {
                path::normalized(text).map(Value::from)
            } else {
                Ok(value.clone())
            }
        }
        Some("integer") => {
            // Models write numbers as text now and then; that is no reason to fail.
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
            let number = number.ok_or_else(|| format!("'{key}' is not a whole number"))?;
            let (least, most) = (schema["minimum"].as_u64().unwrap_or(0), schema["maximum"].as_u64());
            if number < least || most.is_some_and(|most| number > most) {
                let most = most.map_or(String::new(), |most| format!(" and at most {most}"));
                return Err(format!("'{key}' must be at least {least}{most}"));
            }
            Ok(json!(number))
        }
        Some("boolean") => {
            let yes = value.as_bool().or_else(|| value.as_str()?.parse().ok());
            yes.map(Value::from)
                .ok_or_else(|| format!("'{key}' is not true or false"))
        }
        _ => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> ToolSpec {
        specs(&[name.to_owned()]).unwrap().remove(0)
    }

    #[test]
    fn equal_calls_become_equal_arguments() {
        let read = tool("read_file");
        let a = read
            .checked(&json!({ "path": "./src/../a.txt", "offset": "3" }))
            .unwrap();
        let b = read
            .checked(&json!({ "offset": 3, "path": "/workspace/a.txt", "limit": null }))
            .unwrap();
        assert_eq!(a, b);
    }

    #[test]
    fn wrong_input_is_named() {
        for (name, input, word) in [
            ("bash", json!({}), "'command' is missing"),
            ("bash", json!({ "command": 3 }), "'command' is not a text"),
            ("bash", json!({ "command": "ls", "cwd": "/" }), "'cwd' is not a field"),
            ("bash", json!({ "command": "ls", "timeout_seconds": 0 }), "at least 1"),
            (
                "bash",
                json!({ "command": "ls", "timeout_seconds": 601 }),
                "at most 600",
            ),
            ("bash", json!({ "command": "a\0b" }), "NUL"),
            ("bash", json!([]), "not an object"),
            (
                "write_file",
                json!({ "path": "a", "content": "x".repeat(INPUT_LIMIT + 1) }),
                "larger than",
            ),
        ] {
            let complaint = tool(name).checked(&input).unwrap_err();
            assert!(complaint.contains(word), "{complaint}");
        }
        assert!(specs(&["bsh".to_owned()]).unwrap_err().hint.unwrap().contains("bash"));
    }
}
