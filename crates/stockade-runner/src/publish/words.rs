//! The words of a pull request that nobody wrote by hand.
//!
//! A task may have been pasted from anywhere and a summary is the agent's. A server would read both
//! as Markdown: `@name` calls a person, `fixes #1` closes an issue, a picture tells its server who
//! looks. So in the body they stand in code blocks, where nothing of that has a meaning; a title and
//! a commit's message have no code blocks, so there the signs are taken out.

use stockade_domain::{Run, RunResult, git::readable};

use crate::text;

/// Longest title, in characters.
const TITLE: usize = 120;
/// Most bytes of the task, of the summary and of the list of files.
const BLOCK: usize = 8 << 10;
/// Most files that are named.
const FILES: usize = 50;

/// The first line of a task as a title.
pub(crate) fn title(prompt: &str) -> String {
    let line = prompt
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let line = without_references(&readable(line).replace('\t', " "));
    let mut title: String = line.trim().chars().take(TITLE).collect();
    if title.len() < line.trim().len() {
        title.pop();
        title.push('…');
    }
    match title.trim().is_empty() {
        true => "Change made by an agent".to_owned(),
        false => title,
    }
}

/// What the run was asked, what the agent says, and what changed.
pub(super) fn body(run: &Run, result: &RunResult) -> String {
    written(&run.id.to_string(), &run.spec.agent.name, &run.spec.prompt, result)
}

fn written(run: &str, agent: &str, task: &str, result: &RunResult) -> String {
    let mut body = format!("Made by run `{run}` of Stockade, by the agent {}.\n", quoted(agent));
    let mut part = |name: &str, content: &str| {
        let content = readable(content);
        let content = text::clip(content.trim(), BLOCK).0;
        if !content.is_empty() {
            let fence = "`".repeat(longest_run(content).max(2) + 1);
            body.push_str(&format!("\n**{name}**\n\n{fence}text\n{content}\n{fence}\n"));
        }
    };
    part("The task", task);
    part("What the agent says", &result.summary);
    part("What changed", &files(result));
    body
}

fn files(result: &RunResult) -> String {
    let count = |sign: &str, n: Option<u64>| n.map(|n| format!(" {sign}{n}")).unwrap_or_default();
    let line = |path: &str| readable(path).replace(['\n', '\t'], " ");
    let mut lines: Vec<String> = result
        .files
        .iter()
        .take(FILES)
        .map(|file| {
            let (added, removed) = (count("+", file.added), count("-", file.removed));
            format!("{} {}{added}{removed}", file.change, line(&file.path))
        })
        .collect();
    if result.files.len() > FILES {
        lines.push(format!("and {} more", result.files.len() - FILES));
    }
    lines.join("\n")
}

/// A name as inline code that it cannot end.
fn quoted(name: &str) -> String {
    let plain: String = readable(name)
        .chars()
        .filter(|c| !matches!(c, '`' | '\n' | '\t'))
        .collect();
    format!("`{plain}`")
}

/// The longest run of backticks in a text.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A text in which no server finds a person or an issue: without the `@` before a name, the `#`
/// before a number, the dash of `GH-1`, and the scheme of addresses.
pub(crate) fn without_references(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let inside = at > 0 && chars[at - 1].is_alphanumeric();
        let rest: String = chars[at..].iter().take(8).collect::<String>().to_ascii_lowercase();
        let scheme = ["https://", "http://"].iter().find(|scheme| rest.starts_with(**scheme));
        if let Some(scheme) = scheme {
            at += scheme.len();
            continue;
        }
        match (c, next) {
            ('@', Some(next)) if next.is_alphanumeric() && !inside => {}
            ('#', Some(next)) if next.is_ascii_digit() => {}
            ('-', Some(next)) if next.is_ascii_digit() && out.to_ascii_lowercase().ends_with("gh") => out.push(' '),
            _ => out.push(c),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
