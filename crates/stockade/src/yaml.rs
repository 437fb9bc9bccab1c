//! YAML files people write: read with the file, line and column of whatever is wrong.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::Complaint;

/// No configuration or agent is larger.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and parses a file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Complaint> {
    let shown = path.display();
    let meta =
        fs::metadata(path).map_err(|e| Complaint::usage(format!("cannot read {shown}: {e}")).hint("check the path"))?;
    if !meta.is_file() {
        return Err(Complaint::usage(format!("{shown} is not a file")));
    }
    if meta.len() > MAX_BYTES {
        return Err(Complaint::usage(format!(
            "{shown} has {} bytes; at most {MAX_BYTES} are read",
            meta.len()
        )));
    }
    let bytes = fs::read(path).map_err(|e| Complaint::usage(format!("cannot read {shown}: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Complaint::usage(format!("{shown} is not UTF-8: byte {at} starts an invalid sequence"))
            .hint("save the file as UTF-8")
    })?;
    parse(&text, &shown.to_string())
}

/// Parses a text; `origin` stands in errors.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, origin: &str) -> Result<T, Complaint> {
    serde_saphyr::from_str(text).map_err(|error| {
        let place = match error.location() {
            Some(location) => format!("{origin}:{}:{}", location.line(), location.column()),
            None => origin.to_owned(),
        };
        let rendered = error.without_snippet().to_string();
        // The library repeats the place in its first words; once is enough.
        let message = rendered
            .split_once(": ")
            .filter(|(head, _)| head.contains("line "))
            .map_or(rendered.as_str(), |(_, tail)| tail);
        Complaint::usage(format!("{place}: {message}"))
    })
}

/// Writes data as a file that [`parse`] reads back: blocks for what has parts, one line for a
/// list of scalars.
pub(crate) fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                text.push_str(&format!("{indent}{}:", scalar(&Value::String(key.clone()))));
                below(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // The dash takes the place of the first line's indentation.
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        other => text.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            block(value, depth, text);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            text.push('\n');
            block(value, depth, text);
        }
        other => text.push_str(&format!(" {}\n", scalar(other))),
    }
}

/// Words stand as they are, everything else as JSON, which is YAML too.
fn scalar(value: &Value) -> String {
    let plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
            && !matches!(
                text.to_ascii_lowercase().as_str(),
                "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
            )
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        other => other.to_string().chars().map(printable).collect(),
    }
}

/// A character as YAML takes it inside quotes: JSON leaves some as they are that YAML calls not
/// printable (YAML 1.2.2, section 5.1).
fn printable(c: char) -> String {
    match c {
        '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            format!("\\u{:04x}", u32::from(c))
        }
        _ => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use stockade_domain::AgentSpec;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let value = serde_json::json!({
            "environments": [
                { "name": "a-b", "hosts": ["*.x.com", "no", "yes.com"], "empty": [], "none": {}, "deep": [[1, 2], [{ "k": "v: #x" }]] },
                { "reason": "two\nlines \"quoted\" \u{e9}\u{7f}", "n": 5, "t": true, "z": null, "1": "1", "e": "1e3", "true": "true" },
            ],
        });
        let text = write(&value);
        assert_eq!(parse::<Value>(&text, "x").unwrap(), value, "{text}");
        assert!(text.starts_with("environments:\n  - name: a-b\n    hosts: ["), "{text}");
    }

    #[test]
    fn a_mistake_is_named_with_line_and_column() {
        let error = parse::<AgentSpec>("name: x\nkind:\n  builtin: {tools: [bash}\n", "agent.yaml").unwrap_err();
        assert!(error.message.starts_with("agent.yaml:3:"), "{}", error.message);
        let error = parse::<AgentSpec>("name: x\nkind: {builtin: {}}\nmodle: y\n", "agent.yaml").unwrap_err();
        assert!(error.message.starts_with("agent.yaml:3:1"), "{}", error.message);
        assert!(error.message.contains("modle"), "{}", error.message);
        assert!(parse::<AgentSpec>("name: x\nkind: {builtin: {}}\n", "agent.yaml").is_ok());
    }
}
