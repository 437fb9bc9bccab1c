//! Makes a commit of an untrusted patch, on the host, without ever writing a file of it.

use std::path::Path;

use bytes::Bytes;
use stockade_domain::{Failure, Run, Timestamp, run::FileChange};
use stockade_policy::files::ExportedFile;

use crate::{
    RunnerConfig,
    changes::Changes,
    git::Git,
    live::{Live, Place},
    mishap,
    publish::without_references,
    repo::signed_by_stockade,
    text,
};

/// A change, committed.
#[derive(Debug)]
pub(super) struct Change {
    /// The patch, as the host's git writes it.
    pub(super) patch: Bytes,
    /// The branch with its history, as a bundle.
    pub(super) bundle: Bytes,
    /// Changed files, as people see them.
    pub(super) files: Vec<FileChange>,
    /// Every changed path, as the file rules see it.
    pub(super) facts: Vec<ExportedFile>,
    /// The commit.
    pub(super) commit: String,
    /// The branch that holds it.
    pub(super) branch: String,
}

/// The git directory in which a change is made into a commit.
pub(super) struct Workshop<'a> {
    config: &'a RunnerConfig,
    git_dir: std::path::PathBuf,
    base: &'a str,
}

/// Applies a patch to the base and commits the result; `None` when it changes nothing.
pub(super) async fn commit(
    config: &RunnerConfig,
    run: &Run,
    live: &Live,
    place: &Place,
    patch: &[u8],
    now: Timestamp,
) -> Result<Option<Change>, Failure> {
    let workshop = Workshop {
        config,
        git_dir: live.dir.join("export.git"),
        base: &place.repo.base_commit,
    };
    workshop.open(&place.repo.base_git).await?;
    let tree = workshop.apply(patch).await?;
    if tree == workshop.tree_of(workshop.base).await? {
        return Ok(None);
    }
    let branch = format!("stockade/{}", run.id);
    let commit = workshop.commit_tree(&tree, &message(run), now).await?;
    let full_name = format!("refs/heads/{branch}");
    workshop
        .git("naming the branch")
        .args(["update-ref", &full_name, &commit])
        .succeed()
        .await?;
    let files = workshop.files(&commit).await?;
    let facts = workshop.facts(&commit).await?;
    let patch = workshop.patch(&commit).await?;
    let range = if place.repo.given {
        format!("^{}", workshop.base)
    } else {
        full_name.clone()
    };
    let bundle = workshop
        .git("bundling the branch")
        .args(["bundle", "create", "--quiet", "-", &full_name, &range])
        .limit(config.max_patch_bytes)
        .succeed()
        .await?;
    Ok(Some(Change {
        patch: Bytes::from(patch),
        bundle: Bytes::from(bundle.stdout),
        files,
        facts,
        commit,
        branch,
    }))
}

/// Makes the git directory of a change anew, from the bundle that was kept of it.
pub(crate) async fn unbundle(
    config: &RunnerConfig,
    base_git: &Path,
    git_dir: &Path,
    bundle: &[u8],
) -> Result<(), Failure> {
    let workshop = Workshop {
        config,
        git_dir: git_dir.to_owned(),
        base: "",
    };
    workshop.make(base_git).await?;
    let file = git_dir.join("kept.bundle");
    let written = tokio::fs::write(&file, bundle).await;
    written.map_err(|e| mishap::io("bringing the change back", &e))?;
    workshop
        .git("bringing the change back")
        .args(["bundle", "unbundle"])
        .args([&file])
        .succeed()
        .await
        .map(drop)
}

impl Workshop<'_> {
    fn git(&self, what: &str) -> Git {
        let index = self.git_dir.join("stockade-index");
        Git::bounded(self.config, what)
            .env("GIT_INDEX_FILE", index)
            .git_dir(&self.git_dir)
    }

    /// The git directory, at the base.
    async fn open(&self, base_git: &Path) -> Result<(), Failure> {
        self.make(base_git).await?;
        self.git("preparing the export")
            .args(["read-tree", self.base])
            .succeed()
            .await
            .map(drop)
    }

    /// An own git directory that borrows the base's objects.
    async fn make(&self, base_git: &Path) -> Result<(), Failure> {
        let failed = |e: std::io::Error| mishap::io("preparing the export", &e);
        crate::live::remove_dir(&self.git_dir).await?;
        Git::new(self.config, "preparing the export")
            .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])
            .args([&self.git_dir])
            .succeed()
            .await?;
        let info = self.git_dir.join("objects/info");
        tokio::fs::create_dir_all(&info).await.map_err(failed)?;
        let borrowed = format!("{}\n", base_git.join("objects").display());
        tokio::fs::write(info.join("alternates"), borrowed)
            .await
            .map_err(failed)
    }

    async fn apply(&self, patch: &[u8]) -> Result<String, Failure> {
        let answer = self
            .git("applying the change")
            .args(["apply", "--cached", "--whitespace=nowarn", "-p1", "-"])
            .input(patch.to_vec())
            .run()
            .await?;
        if !answer.ok {
            let words = text::redact(&text::middle_out(answer.stderr.trim(), 2000));
            let message = format!("what came out of the sandbox is not a change of the repository: {words}");
            return Err(Failure::terminal("export_invalid", message));
        }
        Ok(self
            .git("writing the change")
            .args(["write-tree"])
            .succeed()
            .await?
            .line())
    }

    async fn tree_of(&self, commit: &str) -> Result<String, Failure> {
        let name = format!("{commit}^{{tree}}");
        Ok(self
            .git("reading the base")
            .args(["rev-parse", "--verify", &name])
            .succeed()
            .await?
            .line())
    }

    async fn commit_tree(&self, tree: &str, message: &str, now: Timestamp) -> Result<String, Failure> {
        let answer = signed_by_stockade(self.git("committing the change"), &now.to_string())
            .args(["commit-tree", tree, "-p", self.base, "-F", "-"])
            .input(message.as_bytes().to_vec())
            .succeed()
            .await?;
        Ok(answer.line())
    }

    /// Every path a commit changes, by path.
    async fn facts(&self, commit: &str) -> Result<Vec<ExportedFile>, Failure> {
        let limit = self.config.max_patch_bytes;
        let listed = self
            .git("listing the change")
            .args(["diff-tree", "-r", "--raw", "-z", "--no-renames", "--no-abbrev"])
            .args([self.base, commit])
            .limit(limit)
            .succeed()
            .await?;
        let git = |what: &str| self.git(what);
        Changes { git: &git, limit }.files(&listed.stdout).await
    }

    async fn patch(&self, commit: &str) -> Result<Vec<u8>, Failure> {
        let answer = self
            .git("writing the patch")
            .args([
                "diff-tree",
                "-p",
                "-r",
                "--binary",
                "--full-index",
                "--no-renames",
                "--no-ext-diff",
            ])
            .args([
                "--no-textconv",
                "--no-color",
                "--src-prefix=a/",
                "--dst-prefix=b/",
                self.base,
                commit,
            ])
            .limit(self.config.max_patch_bytes)
            .succeed()
            .await?;
        Ok(answer.stdout)
    }

    async fn files(&self, commit: &str) -> Result<Vec<FileChange>, Failure> {
        let list = async |format: &str| {
            self.git("listing the change")
                .args(["diff-tree", "-r", "-M", "-z", format, self.base, commit])
                .limit(self.config.max_patch_bytes)
                .succeed()
                .await
                .map(|answer| answer.stdout)
        };
        let (names, numbers) = (list("--name-status").await?, list("--numstat").await?);
        let mut files = changes(&names, &numbers);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

/// Joins what `--name-status -z` and `--numstat -z` say; both list the same changes in the same order.
fn changes(names: &[u8], numbers: &[u8]) -> Vec<FileChange> {
    let words = |bytes: &[u8]| -> Vec<String> {
        bytes
            .split(|b| *b == 0)
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect()
    };
    let (names, numbers) = (words(names), words(numbers));
    let mut numbers = numbers.into_iter();
    let mut names = names.into_iter();
    let mut files = Vec::new();
    while let (Some(status), Some(first)) = (names.next(), names.next()) {
        let renamed = status.starts_with(['R', 'C']);
        let path = if renamed { names.next().unwrap_or(first) } else { first };
        let counts = numbers.next().unwrap_or_default();
        let mut counts = counts.split('\t').map(|n| n.parse::<u64>().ok());
        let (added, removed) = (counts.next().flatten(), counts.next().flatten());
        if renamed {
            // An empty path, then the old and the new one, follow the counts.
            numbers.by_ref().take(2).for_each(drop);
        }
        files.push(FileChange {
            path,
            change: match status.chars().next() {
                Some('A') => "added",
                Some('D') => "deleted",
                Some('R' | 'C') => "renamed",
                _ => "modified",
            }
            .to_owned(),
            added,
            removed,
        });
    }
    files
}

/// The commit's message: the first line of the prompt, the prompt, the run.
fn message(run: &Run) -> String {
    let prompt: String = run
        .spec
        .prompt
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    // Whoever takes the commit in may be a server that looks for people and issues in it.
    let prompt = without_references(&prompt);
    let prompt = prompt.trim();
    let line = prompt.lines().next().unwrap_or_default().trim();
    let mut title: String = line.chars().take(72).collect();
    if title.is_empty() {
        title = "Change made by an agent".to_owned();
    }
    let body = if title == prompt {
        String::new()
    } else {
        format!("{}\n\n", text::clip(prompt, 4096).0)
    };
    format!(
        "{title}\n\n{body}Stockade-Run: {}\nStockade-Agent: {}\n",
        run.id,
        run.spec.agent.name.replace(char::is_control, " ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_lists_together() {
        let names = b"M\0a.txt\0R100\0old name\0new name\0A\0bin\0D\0gone\0";
        let numbers = b"1\t2\ta.txt\0" as &[u8];
        let numbers = [
            numbers,
            b"0\t0\t\0old name\0new name\0",
            b"-\t-\tbin\0",
            b"0\t7\tgone\0",
        ]
        .concat();
        let files = changes(names, &numbers);
        let rows: Vec<_> = files
            .iter()
            .map(|f| (f.path.as_str(), f.change.as_str(), f.added, f.removed))
            .collect();
        assert_eq!(
            rows,
            [
                ("a.txt", "modified", Some(1), Some(2)),
                ("new name", "renamed", Some(0), Some(0)),
                ("bin", "added", None, None),
                ("gone", "deleted", Some(0), Some(7)),
            ]
        );
    }
}
