//! Uses of a git host's credential: each one an action of its own, settled by what came of it.

use serde_json::json;
use stockade_domain::{Amounts, Failure, GitHost, Outcome, Run};
use stockade_gate::{Admitted, Gate, Gated, Scope, kind};
use stockade_ports::{ForgeHttp, GitHosts, GitLogin, HostVisit};

use crate::{mishap, text};

/// How a run comes to its git host.
pub(crate) struct Hosts<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) doors: Option<&'a Gated<kind::Credential, dyn GitHosts>>,
    pub(crate) run: &'a Run,
    pub(crate) scope: &'a Scope,
}

/// A credential in use.
pub(crate) struct Use<T> {
    pub(crate) lent: T,
    admitted: Admitted<kind::Credential>,
}

impl<T> Use<T> {
    /// Writes down what came of it, and gives that back.
    pub(crate) async fn ended<R>(self, done: Result<R, Failure>) -> Result<R, Failure> {
        settle(self.admitted, done).await
    }
}

async fn settle<R>(admitted: Admitted<kind::Credential>, done: Result<R, Failure>) -> Result<R, Failure> {
    let outcome = match &done {
        Ok(_) => Outcome::Done,
        Err(failure) => Outcome::Failed {
            error: text::clip(&failure.message, 500).0.to_owned(),
        },
    };
    let settled = admitted.settle(outcome, Amounts::ZERO, json!({})).await;
    settled.map_err(|e| mishap::store(&e))?;
    done
}

impl Hosts<'_> {
    /// What opens the repository's server to git; `None` when nobody has a credential for it.
    pub(crate) async fn git(&self, purpose: &str) -> Result<Option<Use<GitLogin>>, Failure> {
        let Some(host) = self.run.spec.git_host.as_ref().filter(|host| host.credential.is_some()) else {
            return Ok(None);
        };
        let (doors, admitted) = self.admitted(host, &host.url, purpose).await?;
        let login = doors.open(&admitted).login(self.visit(host)).await;
        match login {
            Ok(lent) => Ok(Some(Use { lent, admitted })),
            Err(failure) => settle(admitted, Err(failure)).await,
        }
    }

    /// The way to the API of the repository's server.
    pub(crate) async fn api(&self, host: &GitHost, purpose: &str) -> Result<Use<Box<dyn ForgeHttp>>, Failure> {
        let Some(api) = &host.api_url else {
            return Err(Failure::terminal(
                "no_api",
                format!("the git host '{}' has no API", host.name),
            ));
        };
        let (doors, admitted) = self.admitted(host, api, purpose).await?;
        let forge = doors.open(&admitted).forge(self.visit(host)).await;
        match forge {
            Ok(lent) => Ok(Use { lent, admitted }),
            Err(failure) => settle(admitted, Err(failure)).await,
        }
    }

    fn visit<'h>(&self, host: &'h GitHost) -> HostVisit<'h> {
        HostVisit {
            team: self.run.team,
            host,
            repository: host.repository(&self.source()),
        }
    }

    /// The repository as the run was asked for.
    pub(crate) fn source(&self) -> String {
        self.run
            .spec
            .repo
            .as_ref()
            .map(|repo| repo.source.clone())
            .unwrap_or_default()
    }

    async fn admitted(
        &self,
        host: &GitHost,
        server: &str,
        purpose: &str,
    ) -> Result<(&Gated<kind::Credential, dyn GitHosts>, Admitted<kind::Credential>), Failure> {
        let without = || {
            Failure::terminal(
                "credential_missing",
                format!("nobody here has a credential for the git host '{}'", host.name),
            )
            .with_hint("set 'credential' of the host under 'git: hosts:' in the configuration")
        };
        let doors = self.doors.ok_or_else(without)?;
        let action = host
            .credential_use(server, purpose, &self.source())
            .ok_or_else(without)?;
        let admitted = self
            .gate
            .pass::<kind::Credential>(self.scope, action, Amounts::ZERO)
            .await;
        Ok((doors, admitted.map_err(|refusal| mishap::refusal(&refusal))?))
    }
}
