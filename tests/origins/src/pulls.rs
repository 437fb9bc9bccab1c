//! Repositories and pull requests as GitHub's API shows them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

/// A time that all documents share; nothing here depends on time.
const NOW: &str = "2026-01-02T03:04:05Z";

/// A repository that is there.
pub(crate) struct Repository {
    pub(crate) owner: String,
    pub(crate) name: String,
    dir: PathBuf,
}

impl Repository {
    /// A bare repository below a directory.
    pub(crate) async fn find(root: &Path, owner: &str, name: &str) -> Option<Self> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('%');
        let dir = root.join(owner).join(format!("{name}.git"));
        let there = plain(owner) && plain(name) && dir.join("HEAD").is_file();
        there.then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            dir,
        })
    }

    /// The commit of a branch.
    pub(crate) async fn branch(&self, name: &str) -> Option<String> {
        let full = format!("refs/heads/{name}^{{commit}}");
        self.git(&["rev-parse", "--verify", "--quiet", &full])
            .await
            .filter(|id| !id.is_empty())
    }

    /// Whether a commit has something that another has not.
    pub(crate) async fn is_ahead(&self, head: &str, base: &str) -> bool {
        let range = format!("{base}..{head}");
        let count = self.git(&["rev-list", "--count", &range]).await;
        count.is_some_and(|count| count != "0")
    }

    async fn git(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("git")
            .arg("--git-dir")
            .arg(&self.dir)
            .args(args)
            .output()
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    pub(crate) fn document(&self) -> Value {
        let Self { owner, name, .. } = self;
        json!({
            "id": 1_296_269, "node_id": "R_kgDOABPHXQ", "name": name, "full_name": format!("{owner}/{name}"),
            "owner": user(owner), "private": true, "fork": false, "default_branch": "main", "archived": false,
            "html_url": format!("https://github.example/{owner}/{name}"),
            "url": format!("https://api.github.example/repos/{owner}/{name}"),
            "clone_url": format!("https://github.example/{owner}/{name}.git"),
            "permissions": { "admin": false, "maintain": false, "push": true, "triage": true, "pull": true },
        })
    }
}

/// All pull requests of the server.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Vec<Value>);

impl Pulls {
    pub(crate) fn all(&self) -> Vec<Value> {
        self.0.clone()
    }

    pub(crate) fn close(&mut self, number: u64) {
        for pull in self.0.iter_mut().filter(|pull| pull["number"] == json!(number)) {
            pull["state"] = json!("closed");
            pull["closed_at"] = json!(NOW);
        }
    }

    pub(crate) fn is_open(&self, repository: &Repository, head: &str, base: &str) -> bool {
        let same = |pull: &&Value| {
            pull["state"] == "open"
                && of(pull, repository)
                && pull["head"]["ref"] == head
                && pull["base"]["ref"] == base
        };
        self.0.iter().any(|pull| same(&pull))
    }

    pub(crate) fn get(&self, repository: &Repository, number: u64) -> Option<Value> {
        let mut own = self.0.iter().filter(|pull| of(pull, repository));
        own.find(|pull| pull["number"] == json!(number)).cloned()
    }

    /// Newest first, filtered by `state`, `head` (`owner:branch`) and `base`.
    pub(crate) fn list(&self, repository: &Repository, query: &str) -> Vec<Value> {
        let asked = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| decoded(value))
        };
        let (state, head, base) = (
            asked("state").unwrap_or_else(|| "open".to_owned()),
            asked("head"),
            asked("base"),
        );
        let fits = |pull: &&Value| {
            (state == "all" || pull["state"] == state.as_str())
                && head
                    .as_deref()
                    .is_none_or(|head| !head.contains(':') || pull["head"]["label"] == head)
                && base.as_deref().is_none_or(|base| pull["base"]["ref"] == base)
        };
        self.0
            .iter()
            .rev()
            .filter(|pull| of(pull, repository))
            .filter(fits)
            .cloned()
            .collect()
    }

    pub(crate) fn open(
        &mut self,
        repository: &Repository,
        head: (&str, &str),
        base: (&str, &str),
        title: &str,
        body: Option<&str>,
        draft: bool,
    ) -> Value {
        let number = self.0.len() as u64 + 1;
        let slug = format!("{}/{}", repository.owner, repository.name);
        let api = format!("https://api.github.example/repos/{slug}");
        let web = format!("https://github.example/{slug}/pull/{number}");
        let side = |(name, id): (&str, &str)| {
            json!({ "label": format!("{}:{name}", repository.owner), "ref": name, "sha": id,
                    "user": user(&repository.owner), "repo": repository.document() })
        };
        let links = json!({
            "url": format!("{api}/pulls/{number}"), "html_url": web, "diff_url": format!("{web}.diff"),
            "patch_url": format!("{web}.patch"), "issue_url": format!("{api}/issues/{number}"),
            "commits_url": format!("{api}/pulls/{number}/commits"),
            "comments_url": format!("{api}/issues/{number}/comments"),
            "statuses_url": format!("{api}/statuses/{}", head.1),
        });
        let people = json!({
            "user": user("stockade-bot"), "assignee": null, "assignees": [], "requested_reviewers": [],
            "requested_teams": [], "labels": [], "milestone": null, "author_association": "CONTRIBUTOR",
            "merged_by": null,
        });
        let mut pull = json!({
            "id": number, "node_id": format!("PR_{number}"), "number": number, "state": "open", "locked": false,
            "active_lock_reason": null, "title": title, "body": body, "draft": draft, "head": side(head),
            "base": side(base), "created_at": NOW, "updated_at": NOW, "closed_at": null, "merged_at": null,
            "merge_commit_sha": null, "auto_merge": null, "merged": false, "mergeable": null, "rebaseable": null,
            "mergeable_state": "unknown", "comments": 0, "review_comments": 0, "maintainer_can_modify": false,
            "commits": 1, "additions": 1, "deletions": 0, "changed_files": 1,
        });
        if let Some(fields) = pull.as_object_mut() {
            for more in [links, people] {
                fields.extend(more.as_object().cloned().unwrap_or_default());
            }
        }
        self.0.push(pull.clone());
        pull
    }
}

fn of(pull: &Value, repository: &Repository) -> bool {
    pull["base"]["repo"]["full_name"] == format!("{}/{}", repository.owner, repository.name)
}

fn user(login: &str) -> Value {
    json!({ "login": login, "id": 1, "node_id": "U_1", "type": "User", "site_admin": false,
            "html_url": format!("https://github.example/{login}") })
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
