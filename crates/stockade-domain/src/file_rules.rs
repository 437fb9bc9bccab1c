//! File rules of an environment: what Stockade's tools may write and what may be exported.
//!
//! This is the data and its syntax; `stockade-policy` decides with it.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::RuleVerdict;

/// Longest pattern, in bytes; a path inside a sandbox is no longer (`PATH_MAX`).
const LONGEST: usize = 4096;

/// What Stockade's own tools may write inside a sandbox and what of the workspace may be exported.
///
/// `deny` and `allow` hold for both, `ask` and the verdicts that ask hold for the export: what
/// is only written inside a sandbox ends with it. The strictest answer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileRules {
    /// Only these paths; empty means every path. Compared exactly.
    pub allow: Vec<PathPattern>,
    /// Never these paths. Compared without regard to ASCII case.
    pub deny: Vec<PathPattern>,
    /// A person decides before these leave. Compared without regard to ASCII case.
    pub ask: Vec<PathPattern>,
    /// What to say to files that programs outside run or obey by themselves (the curated list).
    pub sensitive: RuleVerdict,
    /// What to say to symbolic links that lead out of the workspace.
    pub outside_links: RuleVerdict,
    /// What to say to submodules.
    pub submodules: RuleVerdict,
    /// What to say to files that become executable.
    pub executables: RuleVerdict,
    /// Largest file, in bytes.
    pub max_file_bytes: Option<NonZeroU64>,
    /// Most files written, and most files exported, in one run.
    pub max_files: Option<NonZeroU64>,
    /// Most bytes written, and most bytes exported, in one run.
    pub max_total_bytes: Option<NonZeroU64>,
}

impl Default for FileRules {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            ask: Vec::new(),
            sensitive: RuleVerdict::Ask,
            outside_links: RuleVerdict::Ask,
            submodules: RuleVerdict::Ask,
            executables: RuleVerdict::Allow,
            max_file_bytes: None,
            max_files: None,
            max_total_bytes: None,
        }
    }
}

/// A pattern for paths in the workspace, as in `.gitignore` without its exceptions and sets.
///
/// `*` is any text and `?` any character within a name, `**` any directories. Without a slash
/// (other than one at the end) the pattern is about a name anywhere; with one it starts at the
/// workspace, also with a slash in front. A directory that matches means everything in it; a
/// slash at the end means only directories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern(String);

impl PathPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong with a pattern and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path pattern '{}': {cause}", text.escape_debug())]
pub struct PatternError {
    /// The pattern.
    pub text: String,
    /// What is wrong and what to do.
    pub cause: String,
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(cause) => Err(PatternError {
                text: text.chars().take(200).collect(),
                cause,
            }),
        }
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern that somebody could read in two ways is refused, so that no rule says less than
/// its author thinks.
fn fault(text: &str) -> Option<String> {
    let words = |cause: &str| Some(cause.to_owned());
    if text.trim_matches('/').is_empty() {
        return words("it names nothing; write '**' for every path");
    }
    if text.len() > LONGEST {
        return Some(format!("it is longer than {LONGEST} bytes"));
    }
    if text != text.trim() {
        return words("it begins or ends with a space; remove the space, or write '?' for it");
    }
    if text.starts_with('!') {
        return words("there are no exceptions with '!'; write the paths under 'allow' instead");
    }
    if let Some(odd) = text
        .chars()
        .find(|c| matches!(c, '\\' | '[' | ']' | '{' | '}') || c.is_control())
    {
        return Some(format!(
            "'{}' has no meaning here; write '?' where one stands in a name, or one pattern for each case",
            odd.escape_debug()
        ));
    }
    let body = text.strip_prefix('/').unwrap_or(text);
    if text.starts_with('/') && (body == "workspace" || body.starts_with("workspace/")) {
        return words("patterns start at the workspace; leave '/workspace' out");
    }
    let body = body.strip_suffix('/').unwrap_or(body);
    body.split('/').find_map(|part| match part {
        "" => words("two slashes stand together; write one"),
        "." | ".." => Some(format!(
            "'{part}' is no name; write the path from the workspace without it"
        )),
        "**" => None,
        part if part.contains("**") => words("'**' stands for directories, alone between slashes; write '*' or '**/*'"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_could_be_misread_are_refused_with_what_to_write() {
        for (text, word) in [
            ("", "names nothing"),
            ("/", "names nothing"),
            ("!keep", "allow"),
            ("*.[pP]em", "'['"),
            ("*.{a,b}", "one pattern for each"),
            ("a\\b", "'\\\\'"),
            ("a\nb", "'\\n'"),
            (" a", "space"),
            ("a/ ", "space"),
            ("./a", "'.' is no name"),
            ("a/../b", "'..' is no name"),
            ("a//b", "two slashes"),
            ("a**b", "alone between slashes"),
            ("/workspace/a", "leave '/workspace' out"),
            (&"a".repeat(5000), "longer"),
        ] {
            let error = text.parse::<PathPattern>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        for text in [
            "**",
            "*.pem",
            "/build",
            "build/",
            "src/**/*.rs",
            "a b",
            "workspace/a",
            ".github/workflows/**",
        ] {
            assert_eq!(text.parse::<PathPattern>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_mistake_in_the_rules_does_not_pass_as_no_rule() {
        let read = |text: &str| serde_json::from_str::<FileRules>(text);
        assert_eq!(read("{}").unwrap(), FileRules::default());
        for wrong in [
            r#"{"denied": []}"#,
            r#"{"deny": ["a//b"]}"#,
            r#"{"max_files": 0}"#,
            r#"{"max_files": -1}"#,
            r#"{"sensitive": "maybe"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let rules = read(r#"{"deny": ["*.pem"], "max_files": 3}"#).unwrap();
        let again = serde_json::to_string(&rules).unwrap();
        assert_eq!(read(&again).unwrap(), rules);
    }
}
