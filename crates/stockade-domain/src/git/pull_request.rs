//! A pull request before it exists: what a person approves and what the server is sent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Action, ActionKind, RefName};

/// Longest title, in characters; GitHub takes as many.
const LONGEST_TITLE: usize = 256;
/// Longest body, in characters; GitHub takes as many.
const LONGEST_BODY: usize = 65_536;
/// Longest owner or name of a repository.
const LONGEST_NAME: usize = 100;

/// A repository as GitHub names it: `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoSlug {
    owner: String,
    name: String,
}

impl RepoSlug {
    /// The person or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository's own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RepoSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for RepoSlug {
    type Err = InvalidDraft;

    fn from_str(text: &str) -> Result<Self, InvalidDraft> {
        let plain = |part: &str| {
            let fits = (1..=LONGEST_NAME).contains(&part.len()) && !part.starts_with(['.', '-']);
            fits && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        match text.split_once('/') {
            Some((owner, name)) if plain(owner) && plain(name) => Ok(Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(InvalidDraft {
                field: "repository",
                cause: "write it as owner/name, in letters, digits, '-', '_' and '.'".to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for RepoSlug {
    type Error = InvalidDraft;

    fn try_from(text: String) -> Result<Self, InvalidDraft> {
        text.parse()
    }
}

impl From<RepoSlug> for String {
    fn from(slug: RepoSlug) -> Self {
        slug.to_string()
    }
}

/// What is wrong with a pull request and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pull request's {field}: {cause}")]
pub struct InvalidDraft {
    /// Which part.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub cause: String,
}

/// A pull request to open. Every value of this type is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct PullRequestDraft(Parts);

/// The parts as they are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    repository: RepoSlug,
    head: String,
    base: String,
    title: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    draft: bool,
}

impl PullRequestDraft {
    /// A pull request from the branch `head` into the branch `base` of the same repository.
    ///
    /// # Errors
    ///
    /// [`InvalidDraft`] names the part that cannot be.
    pub fn new(repository: RepoSlug, head: &str, base: &str, title: &str, body: &str) -> Result<Self, InvalidDraft> {
        Self::try_from(Parts {
            repository,
            head: head.to_owned(),
            base: base.to_owned(),
            title: title.to_owned(),
            body: body.to_owned(),
            draft: false,
        })
    }

    /// The same, marked as not ready for review, or as ready.
    #[must_use]
    pub fn as_draft(mut self, draft: bool) -> Self {
        self.0.draft = draft;
        self
    }

    /// Where it is opened.
    pub fn repository(&self) -> &RepoSlug {
        &self.0.repository
    }

    /// The branch that holds the change, without `refs/heads/`.
    pub fn head(&self) -> &str {
        &self.0.head
    }

    /// The branch it shall go into, without `refs/heads/`.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// One line.
    pub fn title(&self) -> &str {
        &self.0.title
    }

    /// Markdown; may be empty.
    pub fn body(&self) -> &str {
        &self.0.body
    }

    /// Whether it is marked as not ready for review.
    pub fn is_draft(&self) -> bool {
        self.0.draft
    }

    /// The action a person approves: everything the server is sent is in its arguments. `server`
    /// is the origin of the API, so that an approval for one server is none for another.
    pub fn action(&self, server: &str) -> Action {
        let Parts {
            repository, head, base, ..
        } = &self.0;
        Action {
            kind: ActionKind::Export,
            operation: "pull_request".to_owned(),
            target: format!("{repository}: {head} into {base}"),
            args: json!({ "server": server, "pull_request": self }),
        }
    }
}

impl TryFrom<Parts> for PullRequestDraft {
    type Error = InvalidDraft;

    fn try_from(parts: Parts) -> Result<Self, InvalidDraft> {
        let wrong = |field, cause: &str| {
            Err(InvalidDraft {
                field,
                cause: cause.to_owned(),
            })
        };
        for (field, branch) in [("head", &parts.head), ("base", &parts.base)] {
            if let Err(error) = RefName::branch(branch) {
                return wrong(field, &format!("{error}; name a branch without 'refs/heads/'"));
            }
        }
        if parts.head == parts.base {
            return wrong(
                "head",
                "it is the base branch itself; name the branch that holds the change",
            );
        }
        if parts.title.trim().is_empty() || parts.title.chars().count() > LONGEST_TITLE {
            return wrong("title", &format!("write 1 to {LONGEST_TITLE} characters"));
        }
        if parts.title.chars().any(deceives) {
            return wrong("title", "write one line of plain text");
        }
        if parts.body.chars().count() > LONGEST_BODY {
            return wrong("body", &format!("write at most {LONGEST_BODY} characters"));
        }
        if parts
            .body
            .chars()
            .any(|c| deceives(c) && !matches!(c, '\n' | '\r' | '\t'))
        {
            return wrong("body", "take the control characters out");
        }
        Ok(Self(parts))
    }
}

/// Whether a character could make a text look other than it is: controls, and marks that turn
/// the direction of writing (Unicode's `Bidi_Control`).
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without the characters that a title or body may not have; line breaks and tabs stay.
pub fn readable(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars()
        .filter(|c| matches!(c, '\n' | '\t') || !deceives(*c))
        .collect()
}

impl From<PullRequestDraft> for Parts {
    fn from(draft: PullRequestDraft) -> Self {
        draft.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(head: &str, base: &str, title: &str, body: &str) -> Result<PullRequestDraft, InvalidDraft> {
        PullRequestDraft::new("octo/hello".parse().unwrap(), head, base, title, body)
    }

    #[test]
    fn what_an_approval_shows_is_all_the_server_is_sent() {
        let one = draft("stockade/run_1", "main", "Fix it", "Because.\n").unwrap();
        let action = one.action("https://api.example");
        let args = action.args["pull_request"].clone();
        assert_eq!(serde_json::from_value::<PullRequestDraft>(args).unwrap(), one);
        assert_eq!(action.target, "octo/hello: stockade/run_1 into main");
        let digest = |draft: &PullRequestDraft, server: &str| draft.action(server).digest();
        for other in [
            draft("stockade/run_2", "main", "Fix it", "Because.\n").unwrap(),
            draft("stockade/run_1", "dev", "Fix it", "Because.\n").unwrap(),
            draft("stockade/run_1", "main", "Fix", "Because.\n").unwrap(),
            draft("stockade/run_1", "main", "Fix it", "").unwrap(),
            one.clone().as_draft(true),
        ] {
            assert_ne!(digest(&other, "https://api.example"), action.digest());
        }
        assert_ne!(digest(&one, "https://other.example"), action.digest());
    }

    #[test]
    fn what_no_server_takes_is_refused_with_the_part_that_is_wrong() {
        for (made, field) in [
            (draft("", "main", "t", ""), "head"),
            (draft("a b", "main", "t", ""), "head"),
            (draft("main", "main", "t", ""), "head"),
            (draft("x", "-main", "t", ""), "base"),
            (draft("x", "main", " ", ""), "title"),
            (draft("x", "main", "a\nb", ""), "title"),
            (draft("x", "main", "a\u{202e}b", ""), "title"),
            (draft("x", "main", &"t".repeat(257), ""), "title"),
            (draft("x", "main", "t", "\u{1b}[2J"), "body"),
            (draft("x", "main", "t", &"b".repeat(65_537)), "body"),
        ] {
            assert_eq!(made.unwrap_err().field, field);
        }
        for slug in ["", "octo", "octo/", "/x", "a/b/c", "../x", "a/..", "a b/c", "a/b?c"] {
            assert!(slug.parse::<RepoSlug>().is_err(), "{slug}");
        }
        let unknown = r#"{"repository":"a/b","head":"x","base":"y","title":"t","reviewers":[]}"#;
        assert!(serde_json::from_str::<PullRequestDraft>(unknown).is_err());
    }
}
