//! Copies the committed state of a repository into a run's working files.
//!
//! Two copies are made: `base.git`, bare and never shown writable to anybody, which the
//! export compares with; and `repo`, a working tree that becomes `/workspace`. Neither has
//! a reflog or a `FETCH_HEAD`, and nothing in them names the host. Only the working tree of a
//! repository that came over HTTP knows its address, as `origin`: the Guard lets git through.

use std::path::{Path, PathBuf};

use stockade_domain::{Failure, RepoSpec};
use stockade_ports::GitLogin;

use super::source::{self, Source, commit_of};
use crate::{
    RunnerConfig,
    git::{self, Git},
    mishap,
};

/// The commit of a run that was given no repository is always the same one.
const EPOCH: &str = "1970-01-01T00:00:00Z";
/// Where the commit to start from is kept while the copies are made.
const BASE_REF: &str = "refs/stockade/base";

/// A repository as it was brought in.
#[derive(Debug, Clone)]
pub(crate) struct Brought {
    /// The bare copy.
    pub(crate) base_git: PathBuf,
    /// The working tree.
    pub(crate) tree: PathBuf,
    /// The commit the run starts from.
    pub(crate) base_commit: String,
    /// The branch it was taken from, where it was one.
    pub(crate) branch: Option<String>,
    /// Files in it.
    pub(crate) files: usize,
    /// Whether there was a repository; otherwise the workspace starts empty.
    pub(crate) given: bool,
    /// Things a person should know.
    pub(crate) notes: Vec<String>,
}

/// Brings a repository into `dir`, or makes an empty one there.
///
/// A server that wants a credential is opened with `login`.
pub(crate) async fn bring(
    config: &RunnerConfig,
    spec: Option<&RepoSpec>,
    login: Option<&GitLogin>,
    dir: &Path,
) -> Result<Brought, Failure> {
    let base_git = dir.join("base.git");
    let tree = dir.join("repo");
    Git::new(config, "making the base copy")
        .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])
        .args([&base_git])
        .succeed()
        .await?;
    let mut notes = Vec::new();
    let branch = match spec {
        None => {
            first_commit(config, &base_git).await?;
            Some("main".to_owned())
        }
        Some(spec) => fetch(config, (spec, login), dir, &base_git, &mut notes).await?,
    };
    let base_commit = commit_of(config, &base_git, BASE_REF)
        .await?
        .ok_or_else(|| Failure::unknown("git_failed", "the base copy lost its base commit"))?;
    check_out(config, &base_git, &tree, &base_commit, branch.as_deref()).await?;
    let listed = Git::new(config, "listing the files")
        .git_dir(&base_git)
        .args(["ls-tree", "-r", "-z", "--name-only", &base_commit])
        .limit(256 << 20)
        .succeed()
        .await?;
    if listed.stdout.split(|b| *b == 0).any(|name| name == b".gitmodules") {
        notes.push("submodules are not brought in; their directories are empty".to_owned());
    }
    Ok(Brought {
        files: listed.stdout.iter().filter(|b| **b == 0).count(),
        base_git,
        tree,
        base_commit,
        branch,
        given: spec.is_some(),
        notes,
    })
}

/// Fetches everything committed, and the commit to start from as [`BASE_REF`].
async fn fetch(
    config: &RunnerConfig,
    (spec, login): (&RepoSpec, Option<&GitLogin>),
    dir: &Path,
    base_git: &Path,
    notes: &mut Vec<String>,
) -> Result<Option<String>, Failure> {
    let source = Source::find(config, &spec.source).await?;
    source.check(config, spec.reference.as_deref()).await?;
    let trust = dir.join("gitconfig");
    git::trust_file(&trust).map_err(|e| mishap::io("writing the clone's configuration", &e))?;
    let transfer = |what: &str| {
        Git::new(config, what)
            .env("GIT_ALLOW_PROTOCOL", source.protocols())
            .env("GIT_CONFIG_GLOBAL", &trust)
            .login(login)
    };
    let head = transfer("reading the repository")
        .args(["ls-remote", "--symref", "--", &source.address(), "HEAD"])
        .succeed()
        .await?;
    let head = Head::read(&head.line());
    if head.commit.is_none() && spec.reference.is_none() {
        return Err(source::empty(&spec.source));
    }
    let fetch_refs = |refs: Vec<String>| {
        transfer("copying the repository")
            .git_dir(base_git)
            .args([
                "fetch",
                "--quiet",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
            ])
            .args(["--no-tags", "--", &source.address()])
            .args(refs)
    };
    let mut refs = vec![
        "+refs/heads/*:refs/heads/*".to_owned(),
        "+refs/tags/*:refs/tags/*".to_owned(),
    ];
    if head.commit.is_some() {
        refs.push("+HEAD:refs/stockade/head".to_owned());
    }
    fetch_refs(refs).succeed().await?;
    if source.is_dirty(config).await? {
        notes.push(format!(
            "the working tree of {} has uncommitted changes; only what is committed was brought in",
            spec.source
        ));
    }
    let (commit, branch) = match &spec.reference {
        None => (commit_of(config, base_git, "refs/stockade/head").await?, head.branch),
        Some(reference) => {
            let mut found = named(config, base_git, reference).await?;
            if found.is_none() && source::is_object_id(reference) {
                // Reachable from no branch or tag; some servers give it when asked by name.
                let asked = fetch_refs(vec![format!("+{reference}:{BASE_REF}")]).run().await?;
                found = asked.ok.then(|| (reference.clone(), None));
            }
            let Some((commit, branch)) = found else {
                return Err(source::unknown_reference(reference, &spec.source));
            };
            (Some(commit), branch)
        }
    };
    let commit = commit.ok_or_else(|| source::empty(&spec.source))?;
    update_ref(config, base_git, BASE_REF, &commit).await?;
    Git::new(config, "tidying the base copy")
        .git_dir(base_git)
        .args(["update-ref", "-d", "refs/stockade/head"])
        .succeed()
        .await?;
    Ok(branch)
}

/// Finds a reference in the copy: a branch, then a tag, then a commit or anything git understands.
async fn named(
    config: &RunnerConfig,
    base_git: &Path,
    reference: &str,
) -> Result<Option<(String, Option<String>)>, Failure> {
    let short = reference.strip_prefix("refs/heads/").unwrap_or(reference);
    if let Some(commit) = commit_of(config, base_git, &format!("refs/heads/{short}")).await? {
        return Ok(Some((commit, Some(short.to_owned()))));
    }
    if let Some(commit) = commit_of(config, base_git, &format!("refs/tags/{reference}")).await? {
        return Ok(Some((commit, None)));
    }
    Ok(commit_of(config, base_git, reference)
        .await?
        .map(|commit| (commit, None)))
}

async fn update_ref(config: &RunnerConfig, git_dir: &Path, name: &str, commit: &str) -> Result<(), Failure> {
    Git::new(config, "naming a commit")
        .git_dir(git_dir)
        .args(["update-ref", name, commit])
        .succeed()
        .await
        .map(drop)
}

/// Gives a repository without content its one empty commit.
async fn first_commit(config: &RunnerConfig, base_git: &Path) -> Result<(), Failure> {
    let tree = Git::new(config, "making an empty tree")
        .git_dir(base_git)
        .args(["hash-object", "-t", "tree", "-w", "--stdin"])
        .input(Vec::new())
        .succeed()
        .await?
        .line();
    let commit = signed_by_stockade(Git::new(config, "making the first commit"), EPOCH)
        .git_dir(base_git)
        .args(["commit-tree", &tree, "-m", "An empty workspace"])
        .succeed()
        .await?
        .line();
    update_ref(config, base_git, "refs/heads/main", &commit).await?;
    update_ref(config, base_git, BASE_REF, &commit).await
}

/// Makes Stockade the author of a commit.
pub(crate) fn signed_by_stockade(git: Git, date: &str) -> Git {
    git.env("GIT_AUTHOR_NAME", "Stockade")
        .env("GIT_AUTHOR_EMAIL", "stockade@stockade.invalid")
        .env("GIT_AUTHOR_DATE", date)
        .env("GIT_COMMITTER_NAME", "Stockade")
        .env("GIT_COMMITTER_EMAIL", "stockade@stockade.invalid")
        .env("GIT_COMMITTER_DATE", date)
}

/// Makes the working tree from the base copy.
async fn check_out(
    config: &RunnerConfig,
    base_git: &Path,
    tree: &Path,
    commit: &str,
    branch: Option<&str>,
) -> Result<(), Failure> {
    Git::new(config, "making the workspace")
        .args(["init", "--quiet", "--template=", "--initial-branch=stockade-initial"])
        .args([tree])
        .succeed()
        .await?;
    let at = |what: &str| Git::new(config, what).args(["-C"]).args([tree]);
    at("filling the workspace")
        .env("GIT_ALLOW_PROTOCOL", "file")
        .args(["-c", "core.logAllRefUpdates=false"])
        .args([
            "fetch",
            "--quiet",
            "--no-write-fetch-head",
            "--no-tags",
            "--no-auto-maintenance",
            "--",
        ])
        .args([base_git])
        .args([
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
            "+refs/stockade/*:refs/stockade/*",
        ])
        .succeed()
        .await?;
    let checkout = at("checking the files out").args(["-c", "core.logAllRefUpdates=false", "checkout", "--quiet"]);
    let checkout = match branch {
        Some(branch) => checkout.args(["-B", branch, commit]),
        None => checkout.args(["--detach", commit]),
    };
    checkout.succeed().await?;
    at("tidying the workspace")
        .args(["update-ref", "-d", BASE_REF])
        .succeed()
        .await?;
    for (key, value) in [
        ("user.name", "Stockade agent"),
        ("user.email", "agent@stockade.invalid"),
    ] {
        at("configuring the workspace")
            .args(["config", "--local", key, value])
            .succeed()
            .await?;
    }
    Ok(())
}

/// What `ls-remote --symref … HEAD` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) commit: Option<String>,
    pub(super) branch: Option<String>,
}

impl Head {
    pub(super) fn read(text: &str) -> Self {
        let mut head = Self::default();
        for line in text.lines() {
            match line.split_once('\t') {
                Some((target, "HEAD")) if target.starts_with("ref: refs/heads/") => {
                    head.branch = target.strip_prefix("ref: refs/heads/").map(str::to_owned);
                }
                Some((id, "HEAD")) if source::is_object_id(id) => head.commit = Some(id.to_owned()),
                _ => {}
            }
        }
        head
    }
}
