//! Pushing one commit to one branch.

use std::{path::PathBuf, time::Duration};

use stockade_domain::{Failure, FailureClass};
use stockade_ports::GitLogin;

use crate::{
    RunnerConfig,
    git::{self, Git},
    repo::protocols_of,
    text,
};

/// Where the commit is, in the run's directory.
pub(crate) const GIT_DIR: &str = "export.git";
/// How often a server that does not answer is asked.
const TRIES: u32 = 3;

pub(super) struct Push<'a> {
    pub(super) config: &'a RunnerConfig,
    pub(super) git_dir: PathBuf,
    pub(super) remote: String,
    pub(super) branch: &'a str,
    pub(super) commit: &'a str,
}

impl Push<'_> {
    /// Makes the branch, or finds it as it should be. Never moves one that somebody else has made.
    pub(super) async fn send(&self, login: Option<&GitLogin>, pause: Duration) -> Result<(), Failure> {
        let mut tries = 1;
        loop {
            let failure = match self.once(login).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // What a lost answer was about shows in the branch.
            let taken = failure.code == "branch_exists" || failure.class != FailureClass::Terminal;
            if taken && self.stands(login).await.unwrap_or(false) {
                return Ok(());
            }
            if failure.class != FailureClass::Transient || tries >= TRIES {
                return Err(failure);
            }
            tokio::time::sleep(pause.saturating_mul(tries)).await;
            tries += 1;
        }
    }

    fn git(&self, what: &str, login: Option<&GitLogin>) -> Result<Git, Failure> {
        let git = Git::new(self.config, what)
            .env("GIT_ALLOW_PROTOCOL", protocols_of(&self.remote)?)
            .login(login)
            .git_dir(&self.git_dir);
        Ok(git)
    }

    fn name(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    async fn once(&self, login: Option<&GitLogin>) -> Result<(), Failure> {
        let name = self.name();
        // An empty expectation: the branch must not be there yet (git-push(1)).
        let answer = self
            .git("pushing the branch", login)?
            .args(["push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed"])
            .args([format!("--force-with-lease={name}:")])
            .args(["--", &self.remote, &format!("{}:{name}", self.commit)])
            .run()
            .await?;
        if answer.ok {
            return Ok(());
        }
        let refused = String::from_utf8_lossy(&answer.stdout)
            .lines()
            .find_map(|line| line.strip_prefix("!\t").map(str::to_owned));
        Err(match refused {
            Some(line) if line.contains("stale info") || line.contains("already exists") => Failure::terminal(
                "branch_exists",
                format!("the server has a branch '{}' with something else in it", self.branch),
            )
            .with_hint("look at that branch; another run of the task gets a branch of its own"),
            Some(line) => {
                let said = format!("{line}; {}", answer.stderr.trim());
                let words = text::redact(&text::middle_out(&said, 1000)).replace(['\n', '\t'], " ");
                Failure::terminal("push_refused", format!("the server did not take the branch: {words}"))
            }
            None => git::failure("pushing the branch", &answer.stderr),
        })
    }

    /// Whether the branch is on the server, at this commit.
    async fn stands(&self, login: Option<&GitLogin>) -> Result<bool, Failure> {
        let name = self.name();
        let answer = self
            .git("looking for the branch", login)?
            .args(["ls-remote", "--refs", "--", &self.remote, &name])
            .succeed()
            .await?;
        Ok(answer.line() == format!("{}\t{name}", self.commit))
    }
}

#[cfg(test)]
#[path = "branch_tests.rs"]
mod tests;
