//! One run's credentials.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::request::Parts;
use stockade_domain::{CredentialBinding, CredentialKind, SecretName, TeamId};
use stockade_policy::Host;
use stockade_ports::{Clock, OpenSecret, SecretError, SecretValue, Secrets, StoreError};

use super::{
    CredentialFault, Destination, Fetch, Placeholder, Repository, Scrubber,
    cover::Coverage,
    fetch::Minted,
    github::{self, NoToken},
    inject::{self, Slot},
    oauth,
    placeholder::refuse_in_head,
};

/// How long before its end a token is replaced: one that ends on its way is worth nothing.
const EARLY: Duration = Duration::from_secs(120);
/// Most values of a run that answers are searched for; the oldest is forgotten first.
const REMEMBERED: usize = 64;

/// What a run's credentials are made of.
pub struct RunCredentialsParts {
    /// Whose secrets.
    pub team: TeamId,
    /// The bindings of the run's environment.
    pub bindings: Vec<CredentialBinding>,
    /// The run's repository, where it has one on a server.
    pub repository: Option<Repository>,
    /// Where secrets are opened.
    pub secrets: Arc<dyn Secrets>,
    /// How tokens are asked for.
    pub fetch: Arc<dyn Fetch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One run's bindings, placeholders and tokens. Nothing in here is shared with another run.
pub struct RunCredentials {
    team: TeamId,
    repository: Option<Repository>,
    secrets: Arc<dyn Secrets>,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    bound: Vec<Bound>,
    used: Mutex<Used>,
}

/// Every value that went into a request of this run, and what finds them.
struct Used {
    values: Vec<SecretValue>,
    scrubber: Scrubber,
}

struct Bound {
    binding: CredentialBinding,
    coverage: Coverage,
    slot: Slot,
    placeholder: Placeholder,
    /// The token in use, and the version of the secret it was asked for with.
    token: tokio::sync::Mutex<Option<(Minted, u64)>>,
}

/// That a binding covers a request: what the gate is asked about before the secret is opened.
#[derive(Debug, Clone, Copy)]
pub struct CredentialUse<'a> {
    /// The binding.
    pub binding: &'a CredentialBinding,
    place: usize,
}

impl fmt::Debug for RunCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.bound.iter().map(|bound| bound.binding.secret.as_str());
        f.debug_list().entries(names).finish()
    }
}

impl RunCredentials {
    /// Credentials of a run that begins, with a new placeholder for each binding.
    ///
    /// # Errors
    ///
    /// [`CredentialFault::NoRandomness`], [`CredentialFault::Binding`].
    pub fn new(parts: RunCredentialsParts) -> Result<Self, CredentialFault> {
        let bound = parts.bindings.into_iter().map(|binding| {
            Ok(Bound {
                slot: Slot::of(&binding.kind),
                coverage: Coverage::of(&binding)?,
                placeholder: Placeholder::mint()?,
                token: tokio::sync::Mutex::default(),
                binding,
            })
        });
        Ok(Self {
            team: parts.team,
            repository: parts.repository,
            secrets: parts.secrets,
            fetch: parts.fetch,
            clock: parts.clock,
            bound: bound.collect::<Result<_, _>>()?,
            used: Mutex::new(Used {
                values: Vec::new(),
                scrubber: Scrubber::new([]),
            }),
        })
    }

    /// Variables of the sandbox, with the placeholders they hold.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let bound = self.bound.iter();
        bound.filter_map(|bound| Some((bound.binding.env.as_deref()?, bound.placeholder.as_str())))
    }

    /// Which binding covers a request; the first one that does. Whether one does or not, a placeholder anywhere but
    /// its own where the secret will stand is a refusal. The body is for [`super::ScannedBody`].
    ///
    /// # Errors
    ///
    /// [`CredentialFault::Placeholder`], [`CredentialFault::SeveralValues`].
    pub fn judge(&self, to: Destination<'_>, head: &Parts) -> Result<Option<CredentialUse<'_>>, CredentialFault> {
        let covers = |bound: &Bound| bound.coverage.covers(to, &head.method, head.uri.path());
        let place = self.bound.iter().position(covers);
        let bound = place.map(|place| &self.bound[place]);
        let slot = bound.map(|bound| &bound.slot);
        refuse_in_head(head, &Slot::target(slot, &head.uri), slot.and_then(Slot::header))?;
        if let Some(bound) = bound {
            bound.slot.check(head, &bound.placeholder)?;
        }
        Ok(place.map(|place| CredentialUse {
            binding: &self.bound[place].binding,
            place,
        }))
    }

    /// The secret that some request to this host and port gets, if one does: such connections have to be read.
    pub fn bound_to(&self, host: &Host, port: u16) -> Option<&SecretName> {
        let to = Destination { host, port, tls: true };
        let bound = self.bound.iter().find(|bound| bound.coverage.is_bound(to));
        bound.map(|bound| &bound.binding.secret)
    }

    /// The first binding, whatever it covers: for requests that no sandbox makes.
    pub(super) fn first(&self) -> Option<CredentialUse<'_>> {
        let binding = &self.bound.first()?.binding;
        Some(CredentialUse { binding, place: 0 })
    }

    /// Opens the secret, or gets a token for it, and puts it into the request that was judged. The store is asked
    /// each time: a secret that was removed is used no more.
    ///
    /// # Errors
    ///
    /// Every [`CredentialFault`] about the secret; then the request must not go out.
    pub async fn inject(&self, use_of: CredentialUse<'_>, head: &mut Parts) -> Result<Scrubber, CredentialFault> {
        let bound = &self.bound[use_of.place];
        let secret = &bound.binding.secret;
        let opened = self
            .secrets
            .open(self.team, secret)
            .await
            .map_err(|cause| match cause {
                SecretError::Store(StoreError::NotFound { .. }) => CredentialFault::Missing(secret.clone()),
                cause => CredentialFault::Unavailable {
                    secret: secret.clone(),
                    cause,
                },
            })?;
        let value = self.value(bound, opened).await?;
        let put = inject::put(&bound.binding.kind, &bound.slot, value.expose(), head);
        put.map_err(|why| CredentialFault::Unusable {
            secret: secret.clone(),
            why,
        })?;
        self.remember(value);
        Ok(self.scrubber())
    }

    /// A scrubber for every value that went into a request of this run so far; a server may tell it in the answer to
    /// another one.
    pub fn scrubber(&self) -> Scrubber {
        self.used().scrubber.fresh()
    }

    /// Whether any value went out yet: until then there is nothing to search answers for.
    pub fn any_used(&self) -> bool {
        !self.used().values.is_empty()
    }

    fn remember(&self, value: SecretValue) {
        let mut used = self.used();
        if used.values.iter().any(|known| known.expose() == value.expose()) {
            return;
        }
        if used.values.len() == REMEMBERED {
            used.values.remove(0);
        }
        used.values.push(value);
        used.scrubber = Scrubber::new(&used.values);
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes into the request: the secret, or the token it is good for.
    async fn value(&self, bound: &Bound, opened: OpenSecret) -> Result<SecretValue, CredentialFault> {
        let minted = matches!(
            bound.binding.kind,
            CredentialKind::GithubApp { .. } | CredentialKind::OauthClient { .. }
        );
        if !minted {
            return Ok(opened.value);
        }
        // Whoever comes while a token is being asked for waits for that one.
        let mut token = bound.token.lock().await;
        let now = self.clock.now();
        if let Some((known, version)) = &*token
            && *version == opened.version
            && now.checked_add(EARLY).is_ok_and(|soon| soon < known.until)
        {
            return Ok(known.token.clone());
        }
        *token = None;
        let fresh = self.mint(bound, &opened.value).await?;
        *token = Some((fresh.clone(), opened.version));
        Ok(fresh.token)
    }

    async fn mint(&self, bound: &Bound, secret: &SecretValue) -> Result<Minted, CredentialFault> {
        let name = &bound.binding.secret;
        let refused = |why: String| CredentialFault::Mint {
            secret: name.clone(),
            why,
        };
        let now = self.clock.now();
        match &bound.binding.kind {
            CredentialKind::GithubApp {
                app_id,
                installation_id,
                api_url,
            } => {
                let repository = self.repository.as_ref();
                let repository = repository.ok_or_else(|| {
                    refused("the run has no repository on a server, and a token for all of them is too much".to_owned())
                })?;
                let app = github::App {
                    api_url,
                    app_id,
                    installation_id: *installation_id,
                    pem: secret.expose(),
                };
                let minted = github::mint(&*self.fetch, &app, repository, now).await;
                minted.map_err(|none| match none {
                    NoToken::Refused(why) => refused(why),
                    NoToken::Unusable(why) => CredentialFault::Unusable {
                        secret: name.clone(),
                        why,
                    },
                })
            }
            CredentialKind::OauthClient {
                token_url,
                client_id,
                scopes,
            } => {
                let client = oauth::Client {
                    token_url,
                    client_id,
                    scopes,
                    secret: secret.expose(),
                };
                oauth::mint(&*self.fetch, &client, now).await.map_err(refused)
            }
            CredentialKind::Bearer
            | CredentialKind::Basic { .. }
            | CredentialKind::Header { .. }
            | CredentialKind::Query { .. } => Err(refused("it is used as it is".to_owned())),
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
