//! The repository of a run: found, checked, and copied so that the copy shares nothing
//! with the original and knows nothing of where it came from.

mod bring;
mod origin;
mod source;

use std::path::Path;

use stockade_domain::{Failure, RepoSpec};

pub(crate) use bring::{Brought, bring, signed_by_stockade};
pub(crate) use origin::name_origin;
pub(crate) use source::commit_of;

use crate::RunnerConfig;

/// Says early what is wrong with a repository somebody names.
///
/// A path is looked at: it exists, is the top of a git repository, has a commit, and knows
/// the reference. Of a URL only the form is checked; whether it answers shows when the run
/// is provisioned.
///
/// # Errors
///
/// [`Failure`] with a hint; its code is one of `repo_not_found`, `repo_invalid`,
/// `repo_empty`, `repo_reference`, `repo_unsupported`, `git_missing`.
pub async fn check_repo(config: &RunnerConfig, spec: &RepoSpec) -> Result<(), Failure> {
    let source = source::Source::find(config, &spec.source).await?;
    source.check(config, spec.reference.as_deref()).await
}

/// The commit of a branch, in a git directory on this host.
pub(crate) async fn branch_of(config: &RunnerConfig, git_dir: &Path, name: &str) -> Result<Option<String>, Failure> {
    commit_of(config, git_dir, &format!("refs/heads/{name}")).await
}

/// The protocols that may be used with an address, as `GIT_ALLOW_PROTOCOL` spells them.
pub(crate) fn protocols_of(address: &str) -> Result<&'static str, Failure> {
    match source::remote(address)? {
        Some(remote) => Ok(remote.protocols()),
        None => Err(Failure::terminal(
            "repo_unsupported",
            "the repository is a path and no server",
        )),
    }
}

#[cfg(test)]
mod tests;
