//! What would be sent, as a person reads it before they say yes.

use serde_json::Value;
use stockade_domain::{Action, ActionKind, PullRequestDraft};

use super::style;

/// Files and commits that are listed.
const ROWS: usize = 20;

/// The lines of an action beyond its target; none for what the target says whole.
pub(crate) fn lines(action: &Action) -> Vec<String> {
    match (action.kind, action.operation.as_str()) {
        (ActionKind::Export, "pull_request") => pull_request(&action.args),
        (ActionKind::Export, "push") => push(&action.args),
        _ => Vec::new(),
    }
}

fn row(name: &str, value: &str) -> String {
    format!("    {name:<8} {}", style::clean(value).replace('\n', " "))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn pull_request(args: &Value) -> Vec<String> {
    let read = serde_json::from_value::<PullRequestDraft>(args["pull_request"].clone());
    let Ok(draft) = read else { return Vec::new() };
    let mut lines = vec![
        row("at", text(args, "server")),
        row("title", draft.title()),
        row("from", draft.head()),
        row("into", draft.base()),
    ];
    if draft.is_draft() {
        lines.push(row("as", "a draft"));
    }
    let change = &args["change"];
    lines.push(row("commit", text(change, "commit")));
    let count = format!(
        "{} files, +{} -{}",
        change["file_count"], change["added"], change["removed"]
    );
    lines.push(row("change", &count));
    let rows = change["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.extend(listed(rows, change["file_count"].as_u64(), |file| {
        format!("{} {}", text(file, "change"), text(file, "path"))
    }));
    lines.push(row("text", ""));
    let body = style::clean(draft.body());
    lines.extend(body.lines().map(|line| format!("      │ {line}")));
    lines
}

fn push(args: &Value) -> Vec<String> {
    let empty = Vec::new();
    let list = |key: &str| args[key].as_array().unwrap_or(&empty);
    let mut lines = Vec::new();
    for update in list("refs") {
        let value = format!(
            "{} → {} ({})",
            text(update, "ref"),
            text(update, "new"),
            text(update, "history")
        );
        lines.push(row("branch", &value));
    }
    lines.push(row("commits", &args["commits"].to_string()));
    lines.extend(listed(list("log"), None, |commit| {
        let id: String = text(commit, "commit").chars().take(10).collect();
        format!("{id} {}", text(commit, "subject"))
    }));
    lines.push(row("files", &list("files").len().to_string()));
    lines.extend(listed(list("files"), None, |file| {
        file.as_str().unwrap_or_default().to_owned()
    }));
    lines
}

fn listed(rows: &[Value], all: Option<u64>, line: impl Fn(&Value) -> String) -> Vec<String> {
    let mut lines: Vec<String> = rows.iter().take(ROWS).map(|one| row("", &line(one))).collect();
    let all = all.unwrap_or(rows.len() as u64);
    let rest = all.saturating_sub(lines.len() as u64);
    if rest > 0 {
        lines.push(row("", &format!("and {rest} more")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_would_be_sent_is_shown() {
        let draft = PullRequestDraft::new(
            "o/r".parse().unwrap(),
            "stockade/run_1",
            "main",
            "Fix it",
            "One.\n\nTwo.",
        );
        let mut action = draft.unwrap().as_draft(true).action("https://api.example");
        action.args["change"] = serde_json::json!({
            "commit": "abc", "file_count": 22, "added": 3, "removed": 1,
            "files": (0..22).map(|n| serde_json::json!({ "path": format!("f{n}\u{1b}[2J"), "change": "added" })).collect::<Vec<_>>(),
        });
        let shown = lines(&action).join("\n");
        for words in [
            "https://api.example",
            "Fix it",
            "stockade/run_1",
            "main",
            "a draft",
            "abc",
            "22 files, +3 -1",
            "added f0",
            "and 2 more",
            "│ One.",
            "│ Two.",
        ] {
            assert!(shown.contains(words), "'{words}' is not in:\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn a_push_shows_its_branches_commits_and_files() {
        let action = Action {
            kind: ActionKind::Export,
            operation: "push".to_owned(),
            target: String::new(),
            args: serde_json::json!({
                "refs": [{ "ref": "refs/heads/x", "old": "0", "new": "1", "history": "new" }], "commits": 1,
                "log": [{ "commit": "0123456789abcdef", "subject": "Fix" }], "files": ["src/a.rs"],
            }),
        };
        let shown = lines(&action).join("\n");
        for words in ["refs/heads/x → 1 (new)", "0123456789 Fix", "src/a.rs"] {
            assert!(shown.contains(words), "'{words}' is not in:\n{shown}");
        }
        let other = Action {
            operation: "diff".to_owned(),
            ..action
        };
        assert!(lines(&other).is_empty());
    }
}
