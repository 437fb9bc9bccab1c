//! YAML files people write: read with the file, line and column of whatever is wrong.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

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

#[cfg(test)]
mod tests {
    use stockade_domain::AgentSpec;

    use super::*;

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
