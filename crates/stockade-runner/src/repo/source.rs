//! Where a repository comes from.

use std::path::{Path, PathBuf};

use stockade_domain::Failure;
use url::Url;

use crate::{
    RunnerConfig,
    git::{self, Git},
    mishap,
};

/// Where a repository comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A repository on this host.
    Local {
        /// Its working tree; absent for a bare one.
        tree: Option<PathBuf>,
        /// Its git directory.
        git_dir: PathBuf,
    },
    /// A repository elsewhere.
    Remote {
        /// Its address, free of credentials.
        url: String,
        /// The only protocols its transfer may use, as `GIT_ALLOW_PROTOCOL` spells them.
        protocols: &'static str,
    },
}

impl Source {
    /// Reads what a person wrote.
    pub(crate) async fn find(config: &RunnerConfig, text: &str) -> Result<Self, Failure> {
        if text.is_empty() || text.contains(['\0', '\n', '\r']) {
            return Err(not_found("the repository has no usable name", "name a path or a URL"));
        }
        match remote(text)? {
            Some(remote) => Ok(remote),
            None => local(config, Path::new(text)).await,
        }
    }

    /// What git calls it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Local { git_dir, .. } => git_dir.to_string_lossy().into_owned(),
            Self::Remote { url, .. } => url.clone(),
        }
    }

    /// The protocols that may be used to read it.
    pub(crate) fn protocols(&self) -> &'static str {
        match self {
            Self::Local { .. } => "file",
            Self::Remote { protocols, .. } => protocols,
        }
    }

    /// Checks what can be checked without leaving the host.
    pub(crate) async fn check(&self, config: &RunnerConfig, reference: Option<&str>) -> Result<(), Failure> {
        let Self::Local { git_dir, .. } = self else {
            return Ok(());
        };
        let shown = git_dir.display();
        let head = commit_of(config, git_dir, "HEAD").await?;
        match reference {
            None if head.is_none() => Err(empty(&shown.to_string())),
            None => Ok(()),
            Some(reference) => match commit_of(config, git_dir, reference).await? {
                Some(_) => Ok(()),
                None => Err(unknown_reference(reference, &shown.to_string())),
            },
        }
    }

    /// Whether the working tree holds changes that are not committed; they are not brought in.
    pub(crate) async fn is_dirty(&self, config: &RunnerConfig) -> Result<bool, Failure> {
        let Self::Local {
            tree: Some(tree),
            git_dir,
        } = self
        else {
            return Ok(false);
        };
        let mut status = Git::new(config, "looking for uncommitted changes");
        // A filter of the repository's own configuration would be a program to run.
        for name in filters(config, git_dir).await? {
            status = status.args(["-c", &format!("{name}=")]);
        }
        let answer = status
            .git_dir(git_dir)
            .args(["-c", "safe.directory=*", "--work-tree"])
            .args([tree])
            .args([
                "status",
                "--porcelain",
                "--untracked-files=normal",
                "--ignore-submodules=all",
            ])
            .run()
            .await?;
        Ok(answer.ok && !answer.stdout.is_empty())
    }
}

/// Names of the settings that would start a program while git compares files.
async fn filters(config: &RunnerConfig, git_dir: &Path) -> Result<Vec<String>, Failure> {
    let answer = Git::new(config, "reading the repository's configuration")
        .git_dir(git_dir)
        .args(["-c", "safe.directory=*", "config", "--name-only", "--get-regexp"])
        .args([r"^filter\..*\.(clean|process|smudge)$"])
        .run()
        .await?;
    Ok(String::from_utf8_lossy(&answer.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// The commit a name stands for, in a git directory on this host.
pub(crate) async fn commit_of(config: &RunnerConfig, git_dir: &Path, name: &str) -> Result<Option<String>, Failure> {
    let answer = Git::new(config, "looking up a commit")
        .git_dir(git_dir)
        .args([
            "-c",
            "safe.directory=*",
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
        ])
        .args([format!("{name}^{{commit}}")])
        .run()
        .await?;
    let line = answer.line();
    Ok((answer.ok && is_object_id(&line)).then_some(line))
}

/// Whether a text is a whole object id, SHA-1 or SHA-256.
pub(crate) fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The address of a repository that came over HTTP, which is what the Guard lets git speak.
pub(crate) fn over_http(text: &str) -> Option<String> {
    let remote = remote(text).ok().flatten();
    let address = remote.map(|remote| remote.address());
    address.filter(|address| address.starts_with("https://") || address.starts_with("http://"))
}

pub(super) fn remote(text: &str) -> Result<Option<Source>, Failure> {
    if !text.contains("://") {
        return if looks_like_scp(text) {
            Err(unsupported("ssh"))
        } else {
            Ok(None)
        };
    }
    let url = Url::parse(text)
        .map_err(|e| Failure::terminal("repo_invalid", format!("the repository's address is not a URL: {e}")))?;
    let protocols = match url.scheme() {
        "https" => "https",
        "http" => "http:https",
        "git" => "git",
        other => return Err(unsupported(other)),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::terminal(
            "repo_unsupported",
            "the repository's address holds credentials; it is kept in events and receipts, so it must not",
        )
        .with_hint("clone the repository where you have access and name the clone's path instead"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Failure::terminal(
            "repo_invalid",
            "the repository's address names no host",
        ));
    }
    Ok(Some(Source::Remote {
        url: url.to_string(),
        protocols,
    }))
}

/// `host:path` and `user@host:path`, as ssh clones are often written.
fn looks_like_scp(text: &str) -> bool {
    match text.split_once(':') {
        Some((host, _)) => !host.contains('/') && !Path::new(text).exists(),
        None => false,
    }
}

async fn local(config: &RunnerConfig, path: &Path) -> Result<Source, Failure> {
    let shown = path.display();
    let found = tokio::fs::metadata(path).await.map_err(|error| {
        let what = format!("the repository {shown} cannot be opened: {error}");
        not_found(&what, "name the directory of a git repository, or a URL")
    })?;
    if !found.is_dir() {
        let what = format!("the repository {shown} is a file, not a directory");
        return Err(Failure::terminal("repo_invalid", what).with_hint("name the directory of a git repository"));
    }
    let path = tokio::fs::canonicalize(path)
        .await
        .map_err(|e| mishap::io(&format!("resolving {shown}"), &e))?;
    let answer = Git::new(config, "looking at the repository")
        .args(["-c", "safe.directory=*", "-C"])
        .args([&path])
        .args([
            "rev-parse",
            "--path-format=absolute",
            "--git-dir",
            "--is-bare-repository",
        ])
        .run()
        .await?;
    let words = String::from_utf8_lossy(&answer.stdout).into_owned();
    let mut lines = words.lines();
    let (Some(git_dir), Some(bare)) = (lines.next(), lines.next()) else {
        let hint = format!("run 'git init' and commit in {shown}, or name another directory");
        let why = git::failure("looking at the repository", &answer.stderr);
        return Err(match why.code.as_str() {
            "repo_invalid" => {
                Failure::terminal("repo_invalid", format!("{shown} is not a git repository")).with_hint(hint)
            }
            _ => why,
        });
    };
    let git_dir = PathBuf::from(git_dir);
    if bare == "true" {
        return if git_dir == path {
            Ok(Source::Local { tree: None, git_dir })
        } else {
            Err(inside(&path, &git_dir))
        };
    }
    let top = Git::new(config, "looking at the repository")
        .args(["-c", "safe.directory=*", "-C"])
        .args([&path])
        .args(["rev-parse", "--path-format=absolute", "--show-toplevel"])
        .run()
        .await?;
    match top.line() {
        top_line if top.ok && Path::new(&top_line) == path => Ok(Source::Local {
            tree: Some(path),
            git_dir,
        }),
        top_line if top.ok => Err(inside(&path, Path::new(&top_line))),
        // The .git directory itself was named.
        _ => Ok(Source::Local { tree: None, git_dir }),
    }
}

fn inside(path: &Path, top: &Path) -> Failure {
    let what = format!(
        "{} is inside the repository {}, not its top",
        path.display(),
        top.display()
    );
    Failure::terminal("repo_invalid", what).with_hint(format!("name {} instead", top.display()))
}

fn not_found(what: &str, hint: &str) -> Failure {
    Failure::terminal("repo_not_found", what).with_hint(hint)
}

fn unsupported(scheme: &str) -> Failure {
    let what = format!("repositories over {scheme} are not supported; https, http, git and paths are");
    Failure::terminal("repo_unsupported", what).with_hint("clone the repository yourself and name the clone's path")
}

/// A repository without a single commit.
pub(crate) fn empty(shown: &str) -> Failure {
    Failure::terminal(
        "repo_empty",
        format!("the repository {shown} has no commit to start from"),
    )
    .with_hint("commit something first")
}

/// A reference nobody knows.
pub(crate) fn unknown_reference(reference: &str, shown: &str) -> Failure {
    let what = format!("the repository {shown} has no branch, tag or commit '{reference}'");
    Failure::terminal("repo_reference", what).with_hint("check the spelling, or leave it out for the default branch")
}
