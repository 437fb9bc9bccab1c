//! A git host: a server of private repositories and an API of GitHub's shape over them.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};
use stockade_api::{
    domain::{PublishPlan, PullRequestPlan, RunId},
    v1::{CreateTask, NameOr, RepoInput},
};
use stockade_origins::{Credential, GitHubServer, GitServer};

use super::{installation::Installation, program, server::Server};

/// The token that opens both.
pub(crate) const TOKEN: &str = "canary-forge-token-77b1";

/// A git host with one repository, `octo/hello`, and an installation that knows it.
pub(crate) struct Forge {
    pub(crate) installation: Installation,
    pub(crate) git: GitServer,
    pub(crate) api: GitHubServer,
}

impl Forge {
    /// A host whose agent follows a script of these turns.
    pub(crate) async fn new(turns: Value) -> Self {
        let installation = Installation::scripted(turns);
        let root = installation.path("origin");
        let bare = root.join("octo/hello.git");
        let credential = Credential {
            user: "x-access-token".to_owned(),
            password: TOKEN.to_owned(),
        };
        let seed = super::repository::Repository::with(&installation, &[("README", "hello\n")]);
        std::fs::create_dir_all(bare.parent().unwrap()).unwrap();
        seed.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        let git = GitServer::start(&root, Some(credential)).await.unwrap();
        let api = GitHubServer::start(&root, TOKEN).await.unwrap();
        let mut this = Self { installation, git, api };
        let (git, api) = (this.git.origin(), this.api.origin());
        this.host(json!({ "name": "forge", "url": git, "api_url": api, "credential": "BOT" }));
        this
    }

    /// Makes this the one git host of the configuration.
    pub(crate) fn host(&mut self, host: Value) {
        self.installation.configure("git", json!({ "hosts": [host] }));
    }

    /// Lets pull requests be opened without a person.
    pub(crate) fn nobody_is_asked(&mut self) {
        let environment = json!({ "name": "default", "network": "none", "git": { "pull_requests": "allow" } });
        self.installation.configure("environments", json!([environment]));
    }

    /// A server of the installation that holds the token.
    pub(crate) async fn up(&self) -> Server {
        let server = Server::up(&self.installation).await;
        self.set_token(TOKEN).await;
        server
    }

    pub(crate) async fn set_token(&self, token: &str) {
        let set = self.installation.command(&["secret", "set", "BOT"]);
        program::run_with(set, token.as_bytes()).await.expect(0);
    }

    /// The repository's address.
    pub(crate) fn url(&self) -> String {
        format!("{}/octo/hello.git", self.git.origin())
    }

    /// A task about the repository whose change becomes a pull request.
    pub(crate) fn task(&self) -> CreateTask {
        let mut task = CreateTask::new("Add a file.");
        task.repo = Some(RepoInput::from(self.url().as_str()));
        task.agent = Some(NameOr::from("builtin"));
        task.publish = Some(PublishPlan {
            pull_request: Some(PullRequestPlan::default()),
        });
        task
    }

    fn bare(&self) -> PathBuf {
        self.git.root().join("octo/hello.git")
    }

    /// The commit of a branch on the server.
    pub(crate) fn branch(&self, name: &str) -> Option<String> {
        let output = Command::new("git")
            .arg("--git-dir")
            .arg(self.bare())
            .args(["rev-parse", "--verify", "--quiet", &format!("refs/heads/{name}")])
            .output()
            .unwrap();
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        (!id.is_empty()).then_some(id)
    }

    /// How often something was pushed.
    pub(crate) fn pushes(&self) -> usize {
        let seen = self.git.seen();
        let push = |path: &str| path.ends_with("/git-receive-pack");
        seen.iter()
            .filter(|seen| push(seen.uri.path()) && seen.status == 200)
            .count()
    }

    /// How often the API was asked to open a pull request.
    pub(crate) fn asked(&self) -> usize {
        self.api.seen().iter().filter(|seen| seen.method == "POST").count()
    }
}

/// The branch that a run's change gets on the server.
pub(crate) fn branch_of(run: RunId) -> String {
    format!("stockade/{run}/change")
}
