//! The operator's git hosts, opened for one run. Nothing of it is known inside a sandbox.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stockade_domain::{Failure, GitHost, RepoSlug, TeamId};

use crate::{ForgeHttp, SecretValue};

/// Which host is opened, for whom and for what.
#[derive(Debug, Clone)]
pub struct HostVisit<'a> {
    /// Whose secret it is.
    pub team: TeamId,
    /// The host.
    pub host: &'a GitHost,
    /// The repository, where it has a name of the form `owner/name`: a token that is asked for
    /// reaches no other.
    pub repository: Option<RepoSlug>,
}

/// What opens a git server to one process.
#[derive(Clone)]
pub struct GitLogin {
    authorization: SecretValue,
    clean: Arc<dyn Fn(&str) -> String + Send + Sync>,
}

impl GitLogin {
    /// The value of the header `Authorization`, and what takes the secret out of a text.
    pub fn new(authorization: SecretValue, clean: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self {
            authorization,
            clean: Arc::new(clean),
        }
    }

    /// The value of the header `Authorization`.
    pub fn authorization(&self) -> &SecretValue {
        &self.authorization
    }

    /// A text of the server without the secret: servers repeat what they were told.
    pub fn clean(&self, text: &str) -> String {
        (self.clean)(text)
    }
}

impl fmt::Debug for GitLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GitLogin(…)")
    }
}

/// Opens git hosts with the secrets of teams. Implemented by the binary, which knows the vault and
/// the network. Who asks has been admitted by the gate.
#[async_trait]
pub trait GitHosts: Send + Sync {
    /// What opens the host to git.
    ///
    /// # Errors
    ///
    /// [`Failure`] `credential_missing`, `credential_unusable` or `credential_unavailable`, with
    /// what to do.
    async fn login(&self, visit: HostVisit<'_>) -> Result<GitLogin, Failure>;

    /// The way to the host's API. Redirects are not followed, answers come without the secret.
    ///
    /// # Errors
    ///
    /// As [`GitHosts::login`]; `no_api` when the host has none.
    async fn forge(&self, visit: HostVisit<'_>) -> Result<Box<dyn ForgeHttp>, Failure>;
}
