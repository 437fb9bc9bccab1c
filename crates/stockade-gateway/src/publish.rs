//! Whether a change could be published where its run takes it from; told before the run exists.

use stockade_api::{Problem, ProblemCode};
use stockade_domain::{GitHost, PublishPlan, PullRequestPlan, RepoSpec};

use crate::{Catalog, error::Answer};

/// The server of a repository, where the installation has named it.
pub(crate) fn host_of(catalog: &Catalog, repo: Option<&RepoSpec>) -> Option<GitHost> {
    let source = &repo?.source;
    let hosts = catalog.git_hosts.iter();
    // Of two that fit, the one that says more.
    let fits = hosts.filter(|host| host.path_of(source).is_some());
    fits.max_by_key(|host| host.url.len()).cloned()
}

/// Refuses what could only fail once the work is done.
pub(crate) fn check(plan: &PublishPlan, repo: Option<&RepoSpec>, host: Option<&GitHost>) -> Answer<()> {
    let wrong = |field: &str, detail: String, hint: &str| {
        let problem = Problem::new(ProblemCode::Unpublishable, detail);
        Err(problem.with_hint(hint.to_owned()).with("field", field).into())
    };
    let Some(repo) = repo else {
        return wrong(
            "publish",
            "a change without a repository cannot be pushed".to_owned(),
            "name a repository by its URL, or as owner/name",
        );
    };
    if !["https://", "http://"]
        .iter()
        .any(|scheme| repo.source.starts_with(scheme))
    {
        return wrong(
            "publish",
            format!(
                "'{}' is not a repository on a server, so nothing can be pushed to it",
                repo.source
            ),
            "name the repository by its https:// URL, or as owner/name at a git host of the configuration; a change \
             to a repository on this machine is taken with 'stockade runs apply'",
        );
    }
    match &plan.pull_request {
        Some(wanted) => pull_request(wanted, repo, host),
        None => Ok(()),
    }
}

fn pull_request(wanted: &PullRequestPlan, repo: &RepoSpec, host: Option<&GitHost>) -> Answer<()> {
    let wrong = |field: &str, detail: String, hint: &str| {
        let problem = Problem::new(ProblemCode::Unpublishable, detail);
        Err(problem.with_hint(hint.to_owned()).with("field", field).into())
    };
    let field = "publish.pull_request";
    let pushed = "or only push the branch, without a pull request";
    let Some(host) = host else {
        return wrong(
            field,
            format!(
                "'{}' is at no git host of the configuration, so nobody knows its API",
                repo.source
            ),
            &format!("describe the server under 'git: hosts:' with 'url', 'api_url' and 'credential', {pushed}"),
        );
    };
    if host.api_url.is_none() {
        return wrong(
            field,
            format!(
                "the git host '{}' has no API, so no pull request can be opened there",
                host.name
            ),
            &format!("set 'api_url' of the host in the configuration, {pushed}"),
        );
    }
    if host.credential.is_none() {
        return wrong(
            field,
            format!(
                "the git host '{}' has no credential, and no API opens a pull request without one",
                host.name
            ),
            &format!("set 'credential' of the host in the configuration, {pushed}"),
        );
    }
    if host.repository(&repo.source).is_none() {
        return wrong(
            field,
            format!("'{}' is no repository of the form {}/owner/name", repo.source, host.url),
            &format!("name it as owner/name, {pushed}"),
        );
    }
    match wanted.check() {
        Ok(()) => Ok(()),
        Err(invalid) => wrong(
            &format!("{field}.{}", invalid.field),
            invalid.to_string(),
            "change it, or leave it out for the default",
        ),
    }
}
