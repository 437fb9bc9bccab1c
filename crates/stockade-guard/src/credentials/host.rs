//! A secret for a git host of the operator's, put into requests that come from no sandbox.

use std::{fmt, sync::Arc};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use stockade_domain::{CredentialBinding, CredentialKind, HostCredential, TeamId};
use stockade_ports::{Clock, Secrets};

use super::{CredentialFault, Fetch, Repository, RunCredentials, RunCredentialsParts, Scrubber};

/// Which door of a git host is opened; a token stands there in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostDoor {
    /// Git over HTTP: a token is a password.
    Git,
    /// The API: a token is a bearer token.
    Api,
}

/// What a login is made of.
pub struct HostLoginParts<'a> {
    /// Whose secret.
    pub team: TeamId,
    /// Which one, and what it is.
    pub credential: &'a HostCredential,
    /// The only repository that a token is asked for.
    pub repository: Option<Repository>,
    /// Where the secret is opened.
    pub secrets: Arc<dyn Secrets>,
    /// How tokens are asked for.
    pub fetch: Arc<dyn Fetch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The credential for one door.
pub struct HostLogin {
    credentials: RunCredentials,
    path: &'static str,
}

impl fmt::Debug for HostLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credentials.fmt(f)
    }
}

impl HostLogin {
    /// The login of one run for one door.
    ///
    /// # Errors
    ///
    /// [`CredentialFault::NoRandomness`].
    pub fn new(parts: HostLoginParts<'_>, door: HostDoor) -> Result<Self, CredentialFault> {
        let kind = match (&parts.credential.kind, door) {
            (CredentialKind::Basic { .. }, HostDoor::Api) => CredentialKind::Bearer,
            (kind, _) => kind.clone(),
        };
        let binding = CredentialBinding {
            secret: parts.credential.secret.clone(),
            kind,
            hosts: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            env: None,
        };
        let credentials = RunCredentials::new(RunCredentialsParts {
            team: parts.team,
            bindings: vec![binding],
            repository: parts.repository,
            secrets: parts.secrets,
            fetch: parts.fetch,
            clock: parts.clock,
        })?;
        let path = match door {
            HostDoor::Git => "/info/refs",
            HostDoor::Api => "/",
        };
        Ok(Self { credentials, path })
    }

    /// The value of `Authorization`: the secret, or a token that was asked for with it.
    ///
    /// # Errors
    ///
    /// Every [`CredentialFault`] about the secret.
    pub async fn authorization(&self) -> Result<HeaderValue, CredentialFault> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = http::Uri::from_static(self.path);
        if let Some(only) = self.credentials.first() {
            self.credentials.inject(only, &mut head).await?;
        }
        let value = head.headers.remove(AUTHORIZATION);
        value.ok_or(CredentialFault::SeveralValues(AUTHORIZATION.to_string()))
    }

    /// What takes the secret out of answers.
    pub fn scrubber(&self) -> Scrubber {
        self.credentials.scrubber()
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
