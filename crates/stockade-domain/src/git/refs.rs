//! Names of objects and references, and what a push does to a reference.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name of a reference, in bytes. Git itself ends at the length of a path.
const LONGEST_REF: usize = 1024;

/// The name of an object: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(String);

/// Why a text is no object's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object's name: expected 40 or 64 lower-case hexadecimal digits")]
pub struct InvalidObjectId;

impl ObjectId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all digits are zero, which stands for "no object".
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|digit| digit == b'0')
    }
}

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.len() {
            40 | 64 if digits => Ok(Self(text.to_owned())),
            _ => Err(InvalidObjectId),
        }
    }
}

impl TryFrom<String> for ObjectId {
    type Error = InvalidObjectId;

    fn try_from(text: String) -> Result<Self, InvalidObjectId> {
        text.parse()
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The full name of a reference, `refs/…`, as git-check-ref-format(1) allows it, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefName(String);

/// Why a text is no reference's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no full name of a reference: {cause}", text.escape_debug())]
pub struct InvalidRefName {
    /// The text, cut.
    pub text: String,
    /// What is wrong.
    pub cause: &'static str,
}

impl RefName {
    /// The name of a branch, given without `refs/heads/`.
    ///
    /// # Errors
    ///
    /// When no branch can have that name.
    pub fn branch(short: &str) -> Result<Self, InvalidRefName> {
        if short.starts_with('-') {
            let cause = "a branch's name does not begin with '-'";
            return Err(InvalidRefName {
                text: short.to_owned(),
                cause,
            });
        }
        format!("refs/heads/{short}").parse()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the branch, where it is one.
    pub fn as_branch(&self) -> Option<&str> {
        self.0.strip_prefix("refs/heads/")
    }

    /// Whether it is a tag.
    pub fn is_tag(&self) -> bool {
        self.0.starts_with("refs/tags/")
    }
}

/// What git-check-ref-format(1) refuses.
fn fault(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST_REF {
        return Some("it is too long");
    }
    let Some(rest) = name.strip_prefix("refs/") else {
        return Some("it does not begin with 'refs/'");
    };
    if !rest.contains('/') {
        return Some("it needs a kind and a name, like 'refs/heads/main'");
    }
    if name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c)) {
        return Some("it contains a character that names of references may not have");
    }
    if name.contains("..") || name.contains("@{") || name.ends_with('.') {
        return Some("it contains '..' or '@{', or ends with a dot");
    }
    let odd = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    name.split('/')
        .any(odd)
        .then_some("one of its parts is empty, begins with a dot or ends with '.lock'")
}

impl FromStr for RefName {
    type Err = InvalidRefName;

    fn from_str(text: &str) -> Result<Self, InvalidRefName> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(cause) => Err(InvalidRefName {
                text: text.chars().take(200).collect(),
                cause,
            }),
        }
    }
}

impl TryFrom<String> for RefName {
    type Error = InvalidRefName;

    fn try_from(text: String) -> Result<Self, InvalidRefName> {
        text.parse()
    }
}

impl From<RefName> for String {
    fn from(name: RefName) -> Self {
        name.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One command of a push: this reference moves from the one object to the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefUpdate {
    /// The reference.
    #[serde(rename = "ref")]
    pub name: RefName,
    /// Where the client says it stands; zero when it does not exist. The server compares.
    pub old: ObjectId,
    /// Where it shall stand; zero when it shall go.
    pub new: ObjectId,
}

/// What a push does to a reference, as far as the command alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateKind {
    /// A new reference.
    Create,
    /// An existing one moves, forward or not.
    Update,
    /// It is removed.
    Delete,
}

impl RefUpdate {
    /// What it does.
    pub fn kind(&self) -> UpdateKind {
        match (self.old.is_zero(), self.new.is_zero()) {
            (_, true) => UpdateKind::Delete,
            (true, false) => UpdateKind::Create,
            (false, false) => UpdateKind::Update,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_git_takes_and_nothing_else() {
        for good in [
            "refs/heads/main",
            "refs/heads/a/b-c",
            "refs/tags/v1.0",
            "refs/heads/ä",
            "refs/heads/@",
        ] {
            assert_eq!(good.parse::<RefName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "HEAD",
            "main",
            "heads/main",
            "refs/heads",
            "refs/heads/",
            "refs//heads/x",
            "refs/heads/.x",
            "refs/heads/x.lock",
            "refs/heads/x.lock/y",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/a\tb",
            "refs/heads/a~1",
            "refs/heads/a^",
            "refs/heads/a:b",
            "refs/heads/a?",
            "refs/heads/a*",
            "refs/heads/[a",
            "refs/heads/a\\b",
            "refs/heads/a.",
            "refs/heads/a@{1}",
            "refs/heads/a\0",
            "/refs/heads/a",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad}");
        }
        assert!("refs/heads/".to_owned().repeat(200).parse::<RefName>().is_err());
        assert!(RefName::branch("-x").is_err());
        assert_eq!(RefName::branch("a/b").unwrap().as_branch(), Some("a/b"));
    }

    #[test]
    fn object_names_have_one_spelling() {
        assert!("a".repeat(40).parse::<ObjectId>().is_ok());
        assert!("a".repeat(64).parse::<ObjectId>().is_ok());
        for bad in [
            String::new(),
            "a".repeat(39),
            "A".repeat(40),
            "g".repeat(40),
            "a".repeat(41),
        ] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
        assert!("0".repeat(40).parse::<ObjectId>().unwrap().is_zero());
    }
}
