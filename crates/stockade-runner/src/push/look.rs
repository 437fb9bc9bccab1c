//! What a push would do, read from its objects.

use std::collections::{BTreeMap, HashMap, HashSet};

use stockade_domain::{Failure, ObjectId, RefUpdate, git::UpdateKind};
use stockade_policy::{
    files::ExportedFile,
    git::{History, LogLine, PushFacts, RefFacts},
};
use stockade_ports::PushToInspect;

use super::room::{Room, broken};
use crate::{changes::Changes, git::Git};

/// Most bytes git may answer with a list of objects; about four million of them.
const MAX_LIST: u64 = 256 << 20;
/// Most bytes git may answer with changed paths.
const MAX_PATHS: u64 = 64 << 20;
/// Commits that a reviewer is shown.
const SHOWN: usize = 30;
/// Longest subject that is shown, in characters.
const SUBJECT: usize = 200;

pub(super) async fn look(room: &Room<'_>, push: &PushToInspect) -> Result<PushFacts, Failure> {
    let kinds = kinds(room, push).await?;
    check_tips(push, &kinds)?;
    let range = Range::of(push, &kinds);
    let commits = range.commits(room, push.max_commits).await?;
    let count = commits.len() as u64;
    let readable = count <= u64::from(push.max_commits);
    let (files, log) = match readable {
        true => (changed(room, &commits).await?, log(room, &commits).await?),
        false => (Vec::new(), Vec::new()),
    };
    let in_pack = packed(room).await?;
    let stray = match readable {
        true => stray(room, &range, &in_pack).await?,
        false => 0,
    };
    let mut refs = Vec::with_capacity(push.updates.len());
    for update in &push.updates {
        let history = history(room, update, &kinds).await?;
        let update = update.clone();
        refs.push(RefFacts { update, history });
    }
    Ok(PushFacts {
        refs,
        commits: count,
        log,
        files,
        pack_objects: in_pack.len() as u64,
        stray_objects: stray,
    })
}

type Kinds = HashMap<String, String>;

/// The kind of every object that the push or the server names and that is known here.
async fn kinds(room: &Room<'_>, push: &PushToInspect) -> Result<Kinds, Failure> {
    let own = push.updates.iter().flat_map(|update| [&update.old, &update.new]);
    let names: HashSet<&str> = own
        .chain(&push.remote)
        .filter(|id| !id.is_zero())
        .map(ObjectId::as_str)
        .collect();
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    let answer = room
        .git("looking for the objects of a push")
        .args(["cat-file", "--batch-check=%(objectname) %(objecttype)"])
        .input(lines.into_bytes())
        .limit(MAX_LIST)
        .succeed()
        .await?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let known = text.lines().filter_map(|line| line.split_once(' '));
    let known = known.filter(|(_, kind)| *kind != "missing");
    Ok(known.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect())
}

/// A branch is a commit; anything else is a commit or a tag.
fn check_tips(push: &PushToInspect, kinds: &Kinds) -> Result<(), Failure> {
    for update in push.updates.iter().filter(|update| !update.new.is_zero()) {
        let RefUpdate { name, new, .. } = update;
        let wrong = match kinds.get(new.as_str()).map(String::as_str) {
            Some("commit") => continue,
            Some("tag") if name.as_branch().is_none() => continue,
            Some(kind) => format!("{name} would be a {kind}"),
            None => format!("{name} would be {new}, which the push does not bring"),
        };
        return Err(Failure::terminal("push_invalid", wrong));
    }
    Ok(())
}

/// Whether the old commit stays in the history of the new one.
async fn history(room: &Room<'_>, update: &RefUpdate, kinds: &Kinds) -> Result<History, Failure> {
    match update.kind() {
        UpdateKind::Create => return Ok(History::New),
        UpdateKind::Delete => return Ok(History::Removed),
        UpdateKind::Update if !kinds.contains_key(update.old.as_str()) => return Ok(History::Unknown),
        UpdateKind::Update => {}
    }
    let answer = room
        .git("comparing histories")
        .args(["merge-base", "--is-ancestor", update.old.as_str(), update.new.as_str()])
        .run()
        .await?;
    Ok(match (answer.ok, answer.stderr.trim().is_empty()) {
        (true, _) => History::FastForward,
        (false, true) => History::Rewritten,
        // It cannot say: an object that is no commit, or a history with holes.
        (false, false) => History::Unknown,
    })
}

/// The commits that the push brings to the server, and what they need.
struct Range(String);

impl Range {
    fn of(push: &PushToInspect, kinds: &Kinds) -> Self {
        let mut lines = String::new();
        for update in push.updates.iter().filter(|update| !update.new.is_zero()) {
            lines.push_str(&format!("{}\n", update.new));
        }
        let walkable = |id: &&ObjectId| matches!(kinds.get(id.as_str()).map(String::as_str), Some("commit" | "tag"));
        for id in push.remote.iter().filter(walkable) {
            lines.push_str(&format!("^{id}\n"));
        }
        Self(lines)
    }

    fn walk(&self, room: &Room<'_>, more: &[&str]) -> Git {
        room.git("walking the commits of a push")
            .args(["rev-list", "--stdin"])
            .args(more)
            .input(self.0.clone().into_bytes())
            .limit(MAX_LIST)
    }

    /// Newest first; at most one more than `most`.
    async fn commits(&self, room: &Room<'_>, most: u32) -> Result<Vec<String>, Failure> {
        if !self.has_tips() {
            return Ok(Vec::new());
        }
        let most = format!("--max-count={}", u64::from(most) + 1);
        let answer = self.walk(room, &["--topo-order", &most]).run().await?;
        match answer.ok {
            true => Ok(lines(&answer.stdout)),
            false => Err(incomplete(&answer.stderr)),
        }
    }

    /// Everything the commits need and the server lacks. Git fails where any of it is missing.
    async fn objects(&self, room: &Room<'_>) -> Result<HashSet<String>, Failure> {
        if !self.has_tips() {
            return Ok(HashSet::new());
        }
        let answer = self.walk(room, &["--objects", "--no-object-names"]).run().await?;
        match answer.ok {
            true => Ok(lines(&answer.stdout).into_iter().collect()),
            false => Err(incomplete(&answer.stderr)),
        }
    }

    fn has_tips(&self) -> bool {
        self.0.lines().any(|line| !line.starts_with('^'))
    }
}

fn incomplete(stderr: &str) -> Failure {
    broken("the push does not bring everything its commits need", stderr)
}

/// Every file of every commit, once for each kind of change.
async fn changed(room: &Room<'_>, commits: &[String]) -> Result<Vec<ExportedFile>, Failure> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let listed = room
        .git("listing the changes of a push")
        .args(["diff-tree", "--stdin", "-r", "-c", "--root", "--raw", "-z"])
        .args(["--no-renames", "--no-abbrev", "--no-commit-id", "--no-ext-diff"])
        .input(
            commits
                .iter()
                .map(|commit| format!("{commit}\n"))
                .collect::<String>()
                .into_bytes(),
        )
        .limit(MAX_PATHS)
        .succeed()
        .await?;
    let git = |what: &str| room.git(what);
    let changes = Changes {
        git: &git,
        limit: MAX_LIST,
    };
    let mut merged: BTreeMap<(String, String), ExportedFile> = BTreeMap::new();
    for file in changes.files(&listed.stdout).await? {
        let key = (file.path.clone(), format!("{:?}", file.kind));
        let kept = merged.entry(key).or_insert_with(|| file.clone());
        kept.bytes = kept.bytes.max(file.bytes);
    }
    Ok(merged.into_values().collect())
}

/// The newest commits as a reviewer reads them.
async fn log(room: &Room<'_>, commits: &[String]) -> Result<Vec<LogLine>, Failure> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    let names: String = commits.iter().take(SHOWN).map(|commit| format!("{commit}\n")).collect();
    let answer = room
        .git("reading the commits of a push")
        .args([
            "log",
            "--no-walk=unsorted",
            "--stdin",
            "--no-decorate",
            "--no-color",
            "--format=%H %s",
        ])
        .input(names.into_bytes())
        .succeed()
        .await?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let line = |line: &str| {
        let (commit, subject) = line.split_once(' ')?;
        let clean = subject.chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(LogLine {
            commit: commit.parse().ok()?,
            subject: clean.take(SUBJECT).collect(),
        })
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The objects in the pack, those included that git added to make a thin pack whole.
async fn packed(room: &Room<'_>) -> Result<Vec<String>, Failure> {
    let Some(index) = room.index().await? else {
        return Ok(Vec::new());
    };
    let failed = |e: std::io::Error| crate::mishap::io("reading the pack of a push", &e);
    let index = tokio::fs::File::open(index).await.map_err(failed)?.into_std().await;
    let answer = room
        .git("listing the pack of a push")
        .args(["show-index"])
        .input_file(index)
        .limit(MAX_LIST)
        .succeed()
        .await?;
    let name = |line: String| line.split(' ').nth(1).map(str::to_owned);
    Ok(lines(&answer.stdout).into_iter().filter_map(name).collect())
}

/// How many objects of the pack no commit of the push needs and nobody had before. Nobody could
/// say what they are about.
async fn stray(room: &Room<'_>, range: &Range, in_pack: &[String]) -> Result<u64, Failure> {
    let needed = range.objects(room).await?;
    let rest: Vec<&String> = in_pack.iter().filter(|name| !needed.contains(*name)).collect();
    if rest.is_empty() {
        return Ok(0);
    }
    let answer = room
        .before("looking for objects that were there before")
        .args(["cat-file", "--batch-check=%(objectname)"])
        .input(
            rest.iter()
                .map(|name| format!("{name}\n"))
                .collect::<String>()
                .into_bytes(),
        )
        .limit(MAX_LIST)
        .succeed()
        .await?;
    let missing = lines(&answer.stdout)
        .iter()
        .filter(|line| line.ends_with(" missing"))
        .count();
    Ok(missing as u64)
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}
