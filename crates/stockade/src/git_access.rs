//! The operator's git hosts, opened: the vault's secrets, the Guard's way with them, and the way to
//! their APIs, introduced to each other.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use rustls::pki_types::CertificateDer;
use stockade_domain::Failure;
use stockade_forge::ForgeClient;
use stockade_guard::credentials::{
    CredentialFault, Fetch, FetchError, HostDoor, HostLogin, HostLoginParts, Repository, Scrubber,
};
use stockade_ports::{Clock, ForgeError, ForgeHttp, GitHosts, GitLogin, HostVisit, SecretValue, Secrets};

use crate::{settings::Settings, wiring::Base};

/// Opens the git hosts of the configuration.
pub(crate) struct OperatorsHosts {
    secrets: Arc<dyn Secrets>,
    clock: Arc<dyn Clock>,
    roots: Arc<[CertificateDer<'static>]>,
}

impl OperatorsHosts {
    pub(crate) fn new(base: &Base, settings: &Settings) -> Self {
        Self {
            secrets: Arc::clone(&base.secrets),
            clock: Arc::clone(&base.clock),
            roots: settings.certificate_authorities.clone().into(),
        }
    }

    async fn opened(&self, visit: &HostVisit<'_>, door: HostDoor) -> Result<(HostLogin, HeaderValue), Failure> {
        let credential = visit.host.credential.as_ref().ok_or_else(|| {
            Failure::terminal(
                "credential_missing",
                format!("the git host '{}' has no credential", visit.host.name),
            )
            .with_hint("set 'credential' of the host under 'git: hosts:' in the configuration")
        })?;
        let parts = HostLoginParts {
            team: visit.team,
            credential,
            repository: visit.repository.as_ref().map(|slug| Repository {
                owner: slug.owner().to_owned(),
                name: slug.name().to_owned(),
            }),
            secrets: Arc::clone(&self.secrets),
            fetch: Arc::new(Tokens(Arc::clone(&self.roots))),
            clock: Arc::clone(&self.clock),
        };
        let login = HostLogin::new(parts, door).map_err(|fault| failed(&fault))?;
        let value = login.authorization().await.map_err(|fault| failed(&fault))?;
        Ok((login, value))
    }
}

fn failed(fault: &CredentialFault) -> Failure {
    let words = fault.to_string();
    match fault {
        CredentialFault::Missing(_) => Failure::terminal("credential_missing", words),
        CredentialFault::Unavailable { .. } => Failure::transient("credential_unavailable", words),
        CredentialFault::Mint { .. } => Failure::unknown("credential_unavailable", words)
            .with_hint("look at the app's key, its installation and whether that reaches the repository"),
        _ => Failure::terminal("credential_unusable", words).with_hint("set the secret again with a value that can be"),
    }
}

/// A text without the secret.
fn cleaned(scrubber: &Scrubber, bytes: Bytes) -> Bytes {
    let mut scrubber = scrubber.fresh();
    [scrubber.push(bytes), scrubber.finish()].concat().into()
}

#[async_trait]
impl GitHosts for OperatorsHosts {
    async fn login(&self, visit: HostVisit<'_>) -> Result<GitLogin, Failure> {
        let (login, value) = self.opened(&visit, HostDoor::Git).await?;
        let scrubber = login.scrubber();
        let value = SecretValue::new(value.as_bytes().to_vec());
        Ok(GitLogin::new(value, move |text| {
            let clean = cleaned(&scrubber, Bytes::copy_from_slice(text.as_bytes()));
            String::from_utf8_lossy(&clean).into_owned()
        }))
    }

    async fn forge(&self, visit: HostVisit<'_>) -> Result<Box<dyn ForgeHttp>, Failure> {
        let api = visit
            .host
            .api_url
            .as_deref()
            .ok_or_else(|| Failure::terminal("no_api", format!("the git host '{}' has no API", visit.host.name)))?;
        let client = client(api, &self.roots).map_err(|why| Failure::terminal("no_api", why))?;
        let (login, authorization) = self.opened(&visit, HostDoor::Api).await?;
        Ok(Box::new(Forge {
            client,
            authorization,
            scrubber: login.scrubber(),
        }))
    }
}

fn client(address: &str, roots: &[CertificateDer<'static>]) -> Result<ForgeClient, String> {
    ForgeClient::new(address, roots.iter().map(AsRef::as_ref)).map_err(|e| e.to_string())
}

/// An API with the credential for it.
struct Forge {
    client: ForgeClient,
    authorization: HeaderValue,
    scrubber: Scrubber,
}

#[async_trait]
impl ForgeHttp for Forge {
    fn api(&self) -> &str {
        self.client.base()
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, ForgeError> {
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        // What is compressed cannot be searched for the secret.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (mut head, body) = self.client.send_below(request).await?.into_parts();
        self.scrubber.fresh().head(&mut head);
        Ok(Response::from_parts(head, cleaned(&self.scrubber, body)))
    }
}

/// Asks for tokens, each at the server that the kind of credential names.
struct Tokens(Arc<[CertificateDer<'static>]>);

#[async_trait]
impl Fetch for Tokens {
    async fn fetch(&self, request: Request<Bytes>) -> Result<Response<Bytes>, FetchError> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let client = client(&format!("https://{authority}"), &self.0).map_err(FetchError)?;
        client.send(request).await.map_err(|e| FetchError(e.to_string()))
    }
}
