//! The workspace's `origin`: where the repository came from, so that an agent fetches and pushes
//! as people do. There is no credential in it; the Guard has that, and the rules for git.

use std::path::Path;

use stockade_domain::{Failure, RefPrefix, RunId, RunSpec};

use super::source::over_http;
use crate::{RunnerConfig, git::Git};

/// Names the origin of a repository that came over HTTP, which is what the Guard lets git speak;
/// any other workspace has none. Branches that are pushed by name alone go below the run's own.
pub(crate) async fn name_origin(config: &RunnerConfig, tree: &Path, run: RunId, spec: &RunSpec) -> Result<(), Failure> {
    let source = spec.repo.as_ref().map(|repo| repo.source.as_str());
    let Some(address) = source.and_then(over_http) else {
        return Ok(());
    };
    set(config, tree, "remote.origin.url", &address).await?;
    set(
        config,
        tree,
        "remote.origin.fetch",
        "+refs/heads/*:refs/remotes/origin/*",
    )
    .await?;
    let rules = &spec.environment.git;
    let prefix = rules.push.first().map(|prefix: &RefPrefix| prefix.of(run));
    match prefix.filter(|prefix| prefix.starts_with("refs/heads")) {
        Some(prefix) => set(config, tree, "remote.origin.push", &format!("refs/heads/*:{prefix}/*")).await,
        None => Ok(()),
    }
}

async fn set(config: &RunnerConfig, tree: &Path, key: &str, value: &str) -> Result<(), Failure> {
    Git::new(config, "naming the workspace's origin")
        .args(["-C"])
        .args([tree])
        .args(["config", "--local", key, value])
        .succeed()
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use stockade_domain::RepoSpec;
    use stockade_origins::GitServer;
    use stockade_ports::sim::samples;
    use uuid::Uuid;

    use super::*;
    use crate::repo::bring;

    async fn git(config: &RunnerConfig, dir: &Path, args: &[&str]) -> String {
        let git = Git::new(config, "a test").env("GIT_ALLOW_PROTOCOL", "http:file");
        git.args(["-C"]).args([dir]).args(args).succeed().await.unwrap().line()
    }

    #[tokio::test]
    async fn a_branch_pushed_by_name_goes_below_the_runs_own() {
        let root = tempfile::tempdir().unwrap();
        let config = RunnerConfig::new(root.path().to_owned());
        let bare = root.path().join("served/octo/hello.git");
        for dir in ["served/octo/hello.git", "over-http", "from-here"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        git(&config, &bare, &["init", "-q", "--bare", "--initial-branch=trunk"]).await;
        git(&config, &bare, &["config", "http.receivepack", "true"]).await;
        let tree = git(&config, &bare, &["mktree"]).await;
        let author = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"];
        let commit = git(
            &config,
            &bare,
            &[&author[..], &["commit-tree", &tree, "-m", "first"]].concat(),
        )
        .await;
        git(&config, &bare, &["update-ref", "refs/heads/trunk", &commit]).await;
        let server = GitServer::start(&root.path().join("served"), None).await.unwrap();
        let run = RunId::from_uuid(Uuid::from_u128(7));
        let mut spec = samples::spec(samples::limits());
        let bring_from = async |spec: &mut RunSpec, source: String, dir: &str| {
            spec.repo = Some(RepoSpec {
                source,
                reference: None,
            });
            let brought = bring(&config, spec.repo.as_ref(), None, &root.path().join(dir))
                .await
                .unwrap();
            name_origin(&config, &brought.tree, run, spec).await.unwrap();
            brought.tree
        };

        let work = bring_from(&mut spec, format!("{}/octo/hello.git", server.origin()), "over-http").await;
        git(&config, &work, &["checkout", "-q", "-b", "topic"]).await;
        git(&config, &work, &["commit", "-q", "--allow-empty", "-m", "second"]).await;
        git(&config, &work, &["fetch", "-q", "origin"]).await;
        assert_eq!(git(&config, &work, &["rev-parse", "origin/trunk"]).await, commit);
        git(&config, &work, &["push", "-q", "origin", "topic"]).await;
        let refs = git(&config, &bare, &["for-each-ref", "--format=%(refname)"]).await;
        let own = format!("refs/heads/stockade/{run}/topic");
        assert_eq!(refs.lines().collect::<Vec<_>>(), [own.as_str(), "refs/heads/trunk"]);

        let work = bring_from(&mut spec, bare.to_string_lossy().into_owned(), "from-here").await;
        assert_eq!(
            git(&config, &work, &["remote"]).await,
            "",
            "a path of this host is nobody's business"
        );
    }
}
