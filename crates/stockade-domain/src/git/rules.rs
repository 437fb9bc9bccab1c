//! Rules of an environment for git: what may be fetched and pushed through the Guard.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{RefName, RuleVerdict, RunId};

/// What stands for the run's id in a prefix.
const RUN: &str = "{run}";

/// What may be fetched from and pushed to git servers.
///
/// The strictest answer counts, and one reference that is refused refuses the whole push. Only
/// the smart HTTP protocol is spoken; git's older one without a server program is refused.
///
/// The rules hold wherever the Guard reads requests. Connections to [`RefRules::hosts`] and to the
/// host that the run's own repository came from are always read; they are not let out by that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefRules {
    /// Hosts where git is spoken, `name` or `*.suffix`, each with an optional `:port`: connections
    /// there are read, so that these rules can hold. Without a port every port is meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Whether anything may be fetched.
    pub fetch: bool,
    /// Where the run may push to without being asked.
    pub push: Vec<RefPrefix>,
    /// What to say to other branches.
    pub elsewhere: RuleVerdict,
    /// What to say to tags.
    pub tags: RuleVerdict,
    /// What to say to removing a reference.
    pub delete: RuleVerdict,
    /// What to say to an update that is not a fast-forward, or that cannot be seen to be one.
    pub force: RuleVerdict,
    /// What to say to opening a pull request.
    pub pull_requests: RuleVerdict,
    /// Most references in one push.
    pub max_refs: NonZeroU32,
    /// Most commits in one push that the server did not have.
    pub max_commits: NonZeroU32,
    /// Largest pack of one push, in bytes.
    pub max_pack_bytes: NonZeroU64,
}

impl Default for RefRules {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            fetch: true,
            push: vec![RefPrefix(format!("refs/heads/stockade/{RUN}"))],
            elsewhere: RuleVerdict::Deny,
            tags: RuleVerdict::Deny,
            delete: RuleVerdict::Deny,
            force: RuleVerdict::Deny,
            pull_requests: RuleVerdict::Ask,
            max_refs: NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN),
            max_commits: NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN),
            max_pack_bytes: NonZeroU64::new(256 << 20).unwrap_or(NonZeroU64::MIN),
        }
    }
}

/// A reference and everything below it: `refs/heads/stockade/{run}` is that branch and
/// `refs/heads/stockade/{run}/…`, and not `refs/heads/stockade/{run}2`. `{run}` is the run's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPrefix(String);

/// What is wrong with a prefix and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("prefix of references '{}': {cause}", text.escape_debug())]
pub struct InvalidPrefix {
    /// The prefix, cut.
    pub text: String,
    /// What is wrong and what to do.
    pub cause: String,
}

impl RefPrefix {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix of one run.
    pub fn of(&self, run: RunId) -> String {
        self.0.replace(RUN, &run.to_string())
    }

    /// Whether it covers a reference, for one run.
    pub fn covers(&self, name: &RefName, run: RunId) -> bool {
        let own = self.of(run);
        let rest = name.as_str().strip_prefix(&own);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for RefPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let refuse = |cause: String| {
            let text = text.chars().take(200).collect();
            Err(InvalidPrefix { text, cause })
        };
        if text.starts_with("refs/tags") {
            return refuse("tags have a rule of their own, 'tags'".to_owned());
        }
        if text.ends_with('/') {
            return refuse("it ends with a slash; leave the slash out, everything below is meant anyway".to_owned());
        }
        // Everything in front of the run's id is fixed, so an example shows whether it is a name.
        let example = text.replace(RUN, "run");
        if example == "refs/heads" {
            return Ok(Self(text.to_owned()));
        }
        match example.parse::<RefName>() {
            Ok(_) if !example.contains(['{', '}']) => Ok(Self(text.to_owned())),
            Ok(_) => refuse("only '{run}' has a meaning in braces".to_owned()),
            Err(error) => refuse(format!(
                "{}; write for example 'refs/heads/stockade/{RUN}'",
                error.cause
            )),
        }
    }
}

impl TryFrom<String> for RefPrefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<RefPrefix> for String {
    fn from(prefix: RefPrefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for RefPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        let run = RunId::from_uuid(Uuid::from_u128(7));
        let prefix: RefPrefix = "refs/heads/stockade/{run}".parse().unwrap();
        let covers = |rest: &str| prefix.covers(&format!("refs/heads/stockade/{rest}").parse().unwrap(), run);
        assert!(covers(&run.to_string()));
        assert!(covers(&format!("{run}/fix")));
        assert!(!covers(&format!("{run}2")));
        assert!(!covers("other"));
        let all: RefPrefix = "refs/heads".parse().unwrap();
        assert!(all.covers(&"refs/heads/main".parse().unwrap(), run));
        assert!(!all.covers(&"refs/headsx/main".parse().unwrap(), run));
    }

    #[test]
    fn a_mistake_in_the_rules_does_not_pass_as_no_rule() {
        let read = |text: &str| serde_json::from_str::<RefRules>(text);
        assert_eq!(read("{}").unwrap(), RefRules::default());
        for wrong in [
            r#"{"pushs": []}"#,
            r#"{"push": ["main"]}"#,
            r#"{"push": ["refs/heads/a/"]}"#,
            r#"{"push": ["refs/heads/{branch}"]}"#,
            r#"{"push": ["refs/tags/v"]}"#,
            r#"{"max_refs": 0}"#,
            r#"{"force": "sometimes"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let rules = read(r#"{"push": ["refs/heads/bot/{run}", "refs/for/main"], "force": "ask"}"#).unwrap();
        assert_eq!(read(&serde_json::to_string(&rules).unwrap()).unwrap(), rules);
    }
}
