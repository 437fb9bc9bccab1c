//! Compares ARCHITECTURE.md with the workspace, so that the map cannot drift from the land.

use super::table::{Layer, Row, TABLE};
use crate::workspace::Workspace;

/// A map that does not fit on a few screens is not read.
const MAX_LINES: usize = 300;

/// Roots whose files the map may point at; every such path must exist.
const ROOTS: &[&str] = &[
    "crates/", "docs/", "tests/", "xtask/", "fuzz/", "sdk/", "deploy/", ".ci/",
];

/// What is wrong with the map. `exists` answers for a path below the workspace's root.
pub(crate) fn check(map: &str, workspace: &Workspace, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut objections = Vec::new();
    let lines = map.lines().count();
    if lines > MAX_LINES {
        objections.push(format!(
            "has {lines} lines, more than {MAX_LINES}: move the detail to docs/"
        ));
    }
    let mut named: Vec<&str> = map.split(|c: char| !is_word(c)).filter_map(crate_name).collect();
    named.sort_unstable();
    named.dedup();
    for name in &named {
        let targets = workspace
            .crates
            .iter()
            .flat_map(|krate| &krate.targets)
            .map(|target| target.name.as_str());
        let mut known = workspace.crates.iter().map(|krate| krate.name.as_str()).chain(targets);
        if !known.any(|known| known == *name) {
            objections.push(format!("names `{name}`, which does not exist"));
        }
    }
    // The binary's name is also the product's, and what stands beside the layers is named by its path.
    let layered = |row: &&Row| row.layer < Layer::Binary;
    for row in TABLE.iter().filter(layered).filter(|row| !named.contains(&row.name)) {
        objections.push(format!("does not name `{}`", row.name));
    }
    for path in map.split(|c: char| c.is_whitespace() || "`()[]<>|,;".contains(c)) {
        let path = path.trim_end_matches(['.', ':', '/']);
        // A pattern or a placeholder names no single file.
        let literal = !path.contains(['*', '{', '$']) && !path.contains("NNNN");
        if literal && ROOTS.iter().any(|root| path.starts_with(root)) && !exists(path) {
            objections.push(format!("points at {path}, which does not exist"));
        }
    }
    objections
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "-_./~$".contains(c)
}

/// A word that can only mean one of our crates: not a path, a host name or a file.
fn crate_name(word: &str) -> Option<&str> {
    let word = word.trim_end_matches('.');
    let rest = word.strip_prefix("stockade-")?;
    let plain = !rest.is_empty()
        && rest
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !rest.ends_with('-');
    plain.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_crates() {
        assert_eq!(crate_name("stockade-guest-proto"), Some("stockade-guest-proto"));
        assert_eq!(crate_name("stockade-e2e"), Some("stockade-e2e"));
        assert_eq!(crate_name("stockade-store."), Some("stockade-store"));
        for other in [
            "stockade",
            "llm.stockade.internal",
            "~/.cache/stockade-ci",
            "stockade-runner.service",
            "stockade-",
        ] {
            assert_eq!(crate_name(other), None, "{other}");
        }
    }
}
