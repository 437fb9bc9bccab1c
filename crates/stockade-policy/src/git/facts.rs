//! What is known about a push, and the actions made of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stockade_domain::{Action, ActionKind, ObjectId, RefUpdate};

use crate::files::{ExportedFile, to_args};

/// What an update does to the history of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// The reference is new.
    New,
    /// The old commit is an ancestor of the new one.
    FastForward,
    /// It is not: commits would be lost.
    Rewritten,
    /// The old commit is not known here, so nobody can say; counts as rewritten.
    Unknown,
    /// The reference goes.
    Removed,
}

/// One reference of an inspected push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefFacts {
    /// What moves.
    pub update: RefUpdate,
    /// What that does to its history.
    pub history: History,
}

/// A commit as a reviewer reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its name.
    pub commit: ObjectId,
    /// The first line of its message, cut.
    pub subject: String,
}

/// What the host's git says about a push, before a byte of it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushFacts {
    /// Every reference.
    pub refs: Vec<RefFacts>,
    /// Commits that the server does not have.
    pub commits: u64,
    /// The newest of them.
    pub log: Vec<LogLine>,
    /// Every path that any of these commits changes, once for each kind of change; the size is
    /// the largest. What a later commit takes back left nevertheless, so it stands here too.
    pub files: Vec<ExportedFile>,
    /// Objects in the pack.
    pub pack_objects: u64,
    /// Objects in the pack that neither the pushed commits need nor the base has.
    pub stray_objects: u64,
}

/// The action of a push. Without facts it is one that was refused before its pack was read.
///
/// Nothing in it differs between two attempts to push the same commits: the pack's own bytes may.
pub fn push_action(repository: &str, updates: &[RefUpdate], facts: Option<&PushFacts>) -> Action {
    let names: Vec<&str> = updates.iter().map(|update| update.name.as_str()).collect();
    let mut args = match facts {
        None => json!({ "refs": updates, "inspected": false }),
        Some(facts) => {
            let mut args = to_args(&in_order(&facts.files));
            args["refs"] = facts.refs.iter().map(row).collect();
            args["inspected"] = json!(true);
            args["commits"] = json!(facts.commits);
            args["log"] = json!(facts.log);
            args["stray_objects"] = json!(facts.stray_objects);
            args
        }
    };
    args["repository"] = json!(repository);
    Action {
        kind: ActionKind::Export,
        operation: "push".to_owned(),
        target: format!("{repository} {}", names.join(" ")),
        args,
    }
}

/// The action of a push nobody can read; it is refused under every policy.
pub fn unreadable_push(repository: &str, fault: &str) -> Action {
    Action {
        kind: ActionKind::Export,
        operation: "push".to_owned(),
        target: repository.to_owned(),
        args: json!({ "repository": repository, "inspected": false, "fault": fault }),
    }
}

/// The action of reading a repository: objects, and the references that stand there.
pub fn fetch_action(repository: &str, refs: &[String], objects: &[String]) -> Action {
    Action {
        kind: ActionKind::Egress,
        operation: "fetch".to_owned(),
        target: repository.to_owned(),
        args: json!({ "repository": repository, "refs": refs, "objects": objects }),
    }
}

fn row(facts: &RefFacts) -> Value {
    let RefUpdate { name, old, new } = &facts.update;
    json!({ "ref": name, "old": old, "new": new, "history": facts.history })
}

/// By path, plain files last among the same path: the arguments of an export name what is
/// special by the first place of its path.
fn in_order(files: &[ExportedFile]) -> Vec<ExportedFile> {
    let mut files = files.to_vec();
    files.sort_by_cached_key(|file| {
        let plain = file.kind == crate::files::ExportedKind::File;
        (file.path.clone(), plain, format!("{:?}", file.kind))
    });
    files
}
