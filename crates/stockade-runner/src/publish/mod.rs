//! Brings a change that was kept to where people work: the run's branch on the server it came from,
//! and a pull request.
//!
//! All of it is done by the host, with the operator's credential, after the sandbox is gone. The
//! push and the pull request are exports like any other: each is an action with everything in it
//! that the server will be sent, and what was admitted is what is sent. A refusal or a server that
//! does not take it ends here and not the run: the change is kept, and the result says why it went
//! no further.

mod branch;
pub(crate) mod resumed;
mod words;

pub(crate) use words::without_references;

use std::time::Duration;

use serde_json::json;
use stockade_domain::{
    Action, Amounts, EventType, Failure, GitHost, NewEvent, ObjectId, OpenPullRequest, Outcome, Publication,
    PublishPlan, PullRequestDraft, PullRequestPlan, RefName, RefRules, RefUpdate, Run, RunId, RunResult,
    run::FileChange,
};
use stockade_gate::{Admitted, kind};
use stockade_policy::git::{History, LogLine, PushFacts, RefFacts, push_action};

use crate::{
    RunnerConfig,
    hosts::Hosts,
    live::{Live, Place},
    mishap,
    pull_request::{Patient, open_pull_request},
    repo::{Brought, branch_of},
    text,
};

/// Pause before a server that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Changed files that the action of a pull request names.
const FILES_SHOWN: usize = 100;

/// A change on its way out.
pub(crate) struct Publishing<'a> {
    pub(crate) hosts: Hosts<'a>,
    pub(crate) config: &'a RunnerConfig,
    pub(crate) live: &'a Live,
    pub(crate) place: &'a Place,
    pub(crate) result: &'a RunResult,
}

/// The branch a run's change gets on a server: below the place where the run may push, beside what the agent has pushed
/// there itself.
fn own_branch(rules: &RefRules, run: RunId) -> String {
    let first = rules.push.first().map(|prefix| prefix.of(run));
    let first = first.as_deref().and_then(|prefix| prefix.strip_prefix("refs/heads/"));
    match first {
        Some(prefix) => format!("{prefix}/change"),
        None => format!("stockade/{run}/change"),
    }
}

/// A pull request that may be opened.
struct Asked<'a> {
    host: &'a GitHost,
    draft: PullRequestDraft,
    admitted: Admitted<kind::Export>,
}

/// The branch a pull request goes into.
///
/// # Errors
///
/// `pull_request_base` when there is none: the run starts from a tag or a commit and nobody named a
/// branch, or the server does not have that branch.
pub(crate) async fn base_of(config: &RunnerConfig, run: &Run, repo: &Brought) -> Result<Option<String>, Failure> {
    let Some(plan) = run.spec.publish.as_ref().and_then(|plan| plan.pull_request.as_ref()) else {
        return Ok(None);
    };
    let wrong = |what: String, hint: &str| Err(Failure::terminal("pull_request_base", what).with_hint(hint));
    match (&plan.base, &repo.branch) {
        (Some(base), _) => match branch_of(config, &repo.base_git, base).await? {
            Some(_) => Ok(Some(base.clone())),
            None => wrong(
                format!("the repository has no branch '{base}' that a pull request could go into"),
                "check the spelling of the pull request's base",
            ),
        },
        (None, Some(branch)) => Ok(Some(branch.clone())),
        (None, None) => wrong(
            "the run starts from a tag or a commit, so nobody knows which branch a pull request should go into".into(),
            "name the branch: --pr-base BRANCH",
        ),
    }
}

impl Publishing<'_> {
    /// Does what is wanted as far as it goes.
    pub(crate) async fn publish(&self, plan: &PublishPlan) -> Publication {
        let mut done = Publication {
            remote: self.hosts.source(),
            ..Publication::default()
        };
        let work = async {
            // Asked before anything leaves: who says no to a pull request wants no branch either.
            let asked = match &plan.pull_request {
                Some(wanted) => Some(self.ask(wanted).await?),
                None => None,
            };
            let pushed = self.push(&mut done).await;
            match asked {
                Some(asked) => self.pull_request(asked, pushed, &mut done).await,
                None => pushed,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = work => ended,
            () = self.live.stop.cancelled() => Err(Failure::terminal(
                "stopped",
                "the run was stopped, or its time was over, before its change was published",
            )),
        };
        if let Err(failure) = ended {
            tracing::info!(run = %self.run().id, %failure, "a change was kept and not published");
            done.failure = Some(failure);
        }
        done
    }

    fn run(&self) -> &Run {
        self.hosts.run
    }

    async fn admitted(&self, action: Action) -> Result<Admitted<kind::Export>, Failure> {
        let passed = self
            .hosts
            .gate
            .pass::<kind::Export>(&self.place.scope, action, Amounts::ZERO);
        passed.await.map_err(|refusal| mishap::refusal(&refusal))
    }

    async fn record(&self, event: NewEvent) -> Result<(), Failure> {
        let recorded = self.hosts.gate.record(&self.place.scope, vec![event]).await;
        recorded.map_err(|e| mishap::store(&e))
    }

    /// Pushes the commit to the run's branch. A push that an earlier attempt of the run has done is
    /// not done again.
    async fn push(&self, done: &mut Publication) -> Result<(), Failure> {
        let (branch, commit) = self.change()?;
        let action = push_action(&done.remote, &[], Some(&self.facts(&branch, &commit)?));
        if !resumed::was_done(self.hosts.gate, self.run(), &action).await? {
            let admitted = self.admitted(action).await?;
            let pushed = self.send(&branch, &commit).await;
            settle(admitted, &pushed, json!({ "branch": branch, "commit": commit })).await?;
            pushed?;
            let data = json!({ "branch": branch, "commit": commit, "remote": done.remote, "pushed": true });
            self.record(NewEvent::new(EventType::ExportBranch, data)).await?;
        }
        done.branch = Some(branch);
        Ok(())
    }

    /// The branch on the server, and the commit for it.
    fn change(&self) -> Result<(String, String), Failure> {
        let commit = self.result.commit.clone();
        let commit = commit.ok_or_else(|| Failure::unknown("not_exported", "there is no commit to publish"))?;
        let run = self.run();
        Ok((own_branch(&run.spec.environment.git, run.id), commit))
    }

    /// What the push does, as the rules for pushes see it: one new branch with one commit over a base
    /// that came from the same server.
    fn facts(&self, branch: &str, commit: &str) -> Result<PushFacts, Failure> {
        let odd = |e: &dyn std::fmt::Display| Failure::unknown("not_exported", e.to_string());
        let new: ObjectId = commit.parse().map_err(|e| odd(&e))?;
        let zero: ObjectId = "0".repeat(commit.len()).parse().map_err(|e| odd(&e))?;
        let subject = words::title(&self.run().spec.prompt);
        Ok(PushFacts {
            refs: vec![RefFacts {
                update: RefUpdate {
                    name: RefName::branch(branch).map_err(|e| odd(&e))?,
                    old: zero,
                    new: new.clone(),
                },
                history: History::New,
            }],
            commits: 1,
            log: vec![LogLine { commit: new, subject }],
            files: self.live.facts(),
            pack_objects: 0,
            stray_objects: 0,
        })
    }

    async fn send(&self, branch: &str, commit: &str) -> Result<(), Failure> {
        let push = branch::Push {
            config: self.config,
            git_dir: self.live.dir.join(branch::GIT_DIR),
            remote: self.hosts.source(),
            branch,
            commit,
        };
        match self.hosts.git("push").await? {
            None => push.send(None, PAUSE).await,
            Some(used) => {
                let sent = push.send(Some(&used.lent), PAUSE).await;
                used.ended(sent).await
            }
        }
    }

    /// Asks whether the pull request may be opened: everything the server will be sent, and what it is about.
    async fn ask(&self, wanted: &PullRequestPlan) -> Result<Asked<'_>, Failure> {
        let host = self.run().spec.git_host.as_ref();
        let host = host.ok_or_else(|| Failure::terminal("no_api", "the repository is at no git host with an API"))?;
        let draft = self.draft(host, wanted).await?;
        let mut action = draft.action(host.api_url.as_deref().unwrap_or_default());
        action.args["change"] = self.summary();
        let admitted = self.admitted(action).await?;
        Ok(Asked { host, draft, admitted })
    }

    /// Opens the pull request that was asked about, once its branch is there.
    async fn pull_request(
        &self,
        asked: Asked<'_>,
        pushed: Result<(), Failure>,
        done: &mut Publication,
    ) -> Result<(), Failure> {
        let Asked { host, draft, admitted } = asked;
        let opened = match pushed {
            Ok(()) => self.open(host, &draft).await,
            Err(failure) => Err(failure),
        };
        let details = opened.as_ref().map_or_else(|_| json!({}), |opened| json!(opened));
        settle(admitted, &opened, details).await?;
        let opened = opened?;
        let data = json!({
            "number": opened.number, "url": opened.url, "existed": opened.existed, "repository": draft.repository(),
            "head": draft.head(), "base": draft.base(), "title": draft.title(),
        });
        done.pull_request = Some(opened);
        self.record(NewEvent::new(EventType::ExportPullRequest, data)).await
    }

    async fn draft(&self, host: &GitHost, wanted: &PullRequestPlan) -> Result<PullRequestDraft, Failure> {
        let odd = |e: &dyn std::fmt::Display| Failure::terminal("pull_request_invalid", e.to_string());
        let repository = host.repository(&self.hosts.source());
        let repository = repository.ok_or_else(|| odd(&"the repository is none of the form owner/name"))?;
        let base = base_of(self.config, self.run(), &self.place.repo)
            .await?
            .unwrap_or_default();
        let (branch, _) = self.change()?;
        let title = wanted
            .title
            .clone()
            .unwrap_or_else(|| words::title(&self.run().spec.prompt));
        let body = wanted
            .body
            .clone()
            .unwrap_or_else(|| words::body(self.run(), self.result));
        let draft = PullRequestDraft::new(repository, &branch, &base, &title, &body).map_err(|e| odd(&e))?;
        Ok(draft.as_draft(wanted.draft))
    }

    async fn open(&self, host: &GitHost, draft: &PullRequestDraft) -> Result<OpenPullRequest, Failure> {
        let used = self.hosts.api(host, "pull_request").await?;
        let clock = self.hosts.gate.clock();
        let opened = open_pull_request(&Patient::new(&*used.lent, &**clock, PAUSE), draft).await;
        used.ended(opened).await
    }

    /// What a reader of the pull request will find in it.
    fn summary(&self) -> serde_json::Value {
        let files = &self.result.files;
        let sum = |lines: fn(&FileChange) -> Option<u64>| files.iter().filter_map(lines).sum::<u64>();
        json!({
            "commit": self.result.commit, "base_commit": self.result.base_commit,
            "patch_digest": self.result.patch_digest, "file_count": files.len(), "added": sum(|f| f.added),
            "removed": sum(|f| f.removed), "files": files.iter().take(FILES_SHOWN).collect::<Vec<_>>(),
        })
    }
}

async fn settle<T>(
    admitted: Admitted<kind::Export>,
    done: &Result<T, Failure>,
    details: serde_json::Value,
) -> Result<(), Failure> {
    let outcome = match done {
        Ok(_) => Outcome::Done,
        Err(failure) => Outcome::Failed {
            error: text::clip(&failure.message, 1000).0.to_owned(),
        },
    };
    let settled = admitted.settle(outcome, Amounts::ZERO, details).await;
    settled.map_err(|e| mishap::store(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_goes_below_where_the_run_may_push() {
        let run = RunId::from_uuid(uuid::Uuid::from_u128(7));
        let rules = |push: &str| -> RefRules { serde_json::from_str(&format!(r#"{{"push": [{push}]}}"#)).unwrap() };
        for (push, branch) in [
            (r#""refs/heads/stockade/{run}""#, format!("stockade/{run}/change")),
            (r#""refs/heads/bot/{run}", "refs/heads/x""#, format!("bot/{run}/change")),
            (r#""refs/heads""#, format!("stockade/{run}/change")),
            (r#""refs/for/main""#, format!("stockade/{run}/change")),
            ("", format!("stockade/{run}/change")),
        ] {
            assert_eq!(own_branch(&rules(push), run), branch, "{push}");
        }
    }
}
