//! The workspace's `origin`: where the repository came from, so that an agent fetches and pushes
//! as people do. There is no credential in it; the Guard has that, and the rules for git.

use std::path::Path;

use stockade_domain::{Failure, RefPrefix, Run};

use super::source::over_http;
use crate::{RunnerConfig, git::Git};

/// Names the origin of a repository that came over HTTP, which is what the Guard lets git speak;
/// any other workspace has none. Branches that are pushed by name alone go below the run's own.
pub(crate) async fn name_origin(config: &RunnerConfig, tree: &Path, run: &Run) -> Result<(), Failure> {
    let source = run.spec.repo.as_ref().map(|repo| repo.source.as_str());
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
    let rules = &run.spec.environment.git;
    let prefix = rules.push.first().map(|prefix: &RefPrefix| prefix.of(run.id));
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
