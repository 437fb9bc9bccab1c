//! A git server that the operator has named, and what a run does with it.

use serde::{Deserialize, Serialize};

use super::{InvalidDraft, PullRequestDraft, RepoSlug};
use crate::{Action, ActionKind, CredentialKind, Failure, SecretName};

/// The user that git servers take a token from as a password: GitHub names it, others take any.
const TOKEN_USER: &str = "x-access-token";

/// A git server, as an installation knows it and a run keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHost {
    /// What the installation calls it.
    pub name: String,
    /// Where repositories are: `url/owner/name.git`. No slash at the end, no credential in it.
    pub url: String,
    /// Where its API of GitHub's shape is; without it there are no pull requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// What opens both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<HostCredential>,
}

/// A team's secret that opens a git server and its API. It is used outside of every sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct HostCredential {
    /// The team's secret.
    pub secret: SecretName,
    /// What it is: `basic`, `bearer` or `github_app`. An API gets the password of `basic` as a
    /// bearer token.
    pub kind: CredentialKind,
}

/// As it is written: the secret alone, or with its kind.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write the name of a secret, or 'secret' with a 'kind' (basic, bearer or github_app)"
)]
enum Written {
    Secret(SecretName),
    Whole(Whole),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    secret: SecretName,
    #[serde(default = "token")]
    kind: CredentialKind,
}

fn token() -> CredentialKind {
    CredentialKind::Basic {
        username: TOKEN_USER.to_owned(),
    }
}

impl TryFrom<Written> for HostCredential {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Whole { secret, kind } = match written {
            Written::Secret(secret) => Whole { secret, kind: token() },
            Written::Whole(whole) => whole,
        };
        match &kind {
            CredentialKind::Basic { .. } | CredentialKind::Bearer | CredentialKind::GithubApp { .. } => kind.check()?,
            other => {
                return Err(format!(
                    "a git host takes no credential of the kind '{}'; use 'basic', 'bearer' or 'github_app'",
                    other.as_str()
                ));
            }
        }
        Ok(Self { secret, kind })
    }
}

impl GitHost {
    /// The path of a repository below this host, `None` when the address is not below it. In doubt
    /// it is not: an address that two programs could read differently gets no credential.
    pub fn path_of<'a>(&self, source: &'a str) -> Option<&'a str> {
        let path = source.strip_prefix(&self.url)?.strip_prefix('/')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/');
        let odd = |part: &str| matches!(part, "" | "." | "..");
        let fits = path.chars().all(plain) && !path.trim_end_matches('/').split('/').any(odd);
        fits.then_some(path)
    }

    /// The repository of an address below this host, where it is one of the form `owner/name`.
    pub fn repository(&self, source: &str) -> Option<RepoSlug> {
        let path = self.path_of(source)?.trim_end_matches('/');
        path.strip_suffix(".git").unwrap_or(path).parse().ok()
    }

    /// The action of using the host's credential, `None` when it has none. `purpose` is the verb:
    /// `fetch`, `push` or `pull_request`; `server` is who gets the secret.
    pub fn credential_use(&self, server: &str, purpose: &str, repository: &str) -> Option<Action> {
        let secret = &self.credential.as_ref()?.secret;
        Some(Action {
            kind: ActionKind::Credential,
            operation: "git_host".to_owned(),
            target: format!("{secret} for {purpose} at {server}"),
            args: serde_json::json!({
                "secret": secret, "git_host": self.name, "server": server, "host": host_of(server),
                "purpose": purpose, "repository": repository,
            }),
        })
    }

    /// Whether a use of a credential is one of this host's own.
    pub fn covers(&self, action: &Action) -> bool {
        let text = |key: &str| action.args.get(key).and_then(serde_json::Value::as_str);
        let server = text("server");
        let own = server == Some(self.url.as_str()) || (server.is_some() && server == self.api_url.as_deref());
        let secret = self.credential.as_ref().map(|credential| credential.secret.as_str());
        action.kind == ActionKind::Credential
            && action.operation == "git_host"
            && own
            && secret.is_some()
            && text("secret") == secret
            && text("git_host") == Some(self.name.as_str())
            && text("host") == server.map(host_of)
    }
}

/// The host of an address, without its port.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// What becomes of a run's change beyond being kept: it is pushed to the run's own branch of the
/// repository it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishPlan {
    /// And a pull request is opened from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestPlan>,
}

/// The pull request somebody wants, before there is a change for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PullRequestPlan {
    /// The branch it shall go into; the one the run starts from when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Its title; the first line of the task when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its text, in Markdown; the task and the agent's summary, quoted, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Mark it as not ready for review.
    pub draft: bool,
}

impl PullRequestPlan {
    /// Says early what no server would take.
    ///
    /// # Errors
    ///
    /// [`InvalidDraft`] names the part.
    pub fn check(&self) -> Result<(), InvalidDraft> {
        let base = self.base.as_deref().unwrap_or("main");
        let (title, body) = (self.title.as_deref(), self.body.as_deref());
        let repository: RepoSlug = "owner/name".parse()?;
        PullRequestDraft::new(
            repository,
            "stockade/run",
            base,
            title.unwrap_or("title"),
            body.unwrap_or_default(),
        )
        .map(drop)
    }
}

/// What became of a run's change outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The repository's address.
    pub remote: String,
    /// The branch on the server, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The pull request, once it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<OpenPullRequest>,
    /// Why it ended short of what was asked. The change itself is kept all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A pull request that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPullRequest {
    /// Its number in its repository.
    pub number: u64,
    /// Its page, for people.
    pub url: String,
    /// Whether it was there already: the branch had one, and the push has updated it.
    pub existed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(credential: &str) -> Result<GitHost, serde_json::Error> {
        serde_json::from_str(&format!(
            r#"{{"name": "one", "url": "https://git.example/x", "api_url": "https://api.example:8443/v3", "credential": {credential}}}"#
        ))
    }

    #[test]
    fn a_credential_is_a_name_or_a_name_with_a_kind() {
        let plain = host(r#""bot""#).unwrap().credential.unwrap();
        assert_eq!(plain.kind, token());
        let app = r#"{"secret": "bot", "kind": {"github_app": {"app_id": "1", "installation_id": 2}}}"#;
        assert_eq!(host(app).unwrap().credential.unwrap().kind.as_str(), "github_app");
        let whole = host(r#"{"secret": "bot", "kind": "bearer"}"#).unwrap();
        let again: GitHost = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(again, whole);
        for wrong in [
            r#"{"secret": "bot", "kind": {"query": {"name": "token"}}}"#,
            r#"{"secret": "bot", "kind": {"basic": {"username": "a:b"}}}"#,
            r#"{"secret": "bot", "token": "x"}"#,
            r#""no name""#,
        ] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_below_a_host_or_in_doubt_not() {
        let host = host("null").unwrap();
        for below in [
            "https://git.example/x/octo/hello.git",
            "https://git.example/x/octo/hello/",
        ] {
            assert_eq!(host.repository(below).unwrap().to_string(), "octo/hello", "{below}");
        }
        assert_eq!(host.path_of("https://git.example/x/a/b/c.git"), Some("a/b/c.git"));
        assert_eq!(host.repository("https://git.example/x/a/b/c.git"), None);
        for other in [
            "https://git.example/xocto/hello",
            "https://git.example.evil/x/octo/hello",
            "https://git.example/x/../../octo/hello",
            "https://git.example/x/octo/%2e%2e/hello",
            "https://git.example/x//octo/hello",
            "https://git.example/x/octo/hello?x",
            "https://git.example/x/octo\\hello",
            "http://git.example/x/octo/hello",
            "https://git.example/x",
        ] {
            assert_eq!(host.path_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_use_of_the_credential_is_for_this_host_and_its_api_only() {
        let host = host(r#""bot""#).unwrap();
        let of = |server: &str| host.credential_use(server, "push", "octo/hello").unwrap();
        assert!(host.covers(&of("https://git.example/x")) && host.covers(&of("https://api.example:8443/v3")));
        assert_eq!(of("https://api.example:8443/v3").args["host"], "api.example");
        assert!(!host.covers(&of("https://evil.example")));
        for (key, value) in [("secret", "other"), ("git_host", "two"), ("host", "evil.example")] {
            let mut changed = of("https://git.example/x");
            changed.args[key] = value.into();
            assert!(!host.covers(&changed), "{key}");
        }
        let none = GitHost {
            credential: None,
            ..host.clone()
        };
        assert!(
            none.credential_use("https://git.example/x", "push", "octo/hello")
                .is_none()
        );
        assert!(!none.covers(&of("https://git.example/x")));
    }

    #[test]
    fn what_no_server_takes_is_told_before_a_run_begins() {
        let plan = |change: fn(&mut PullRequestPlan)| {
            let mut plan = PullRequestPlan::default();
            change(&mut plan);
            plan.check().map_err(|wrong| wrong.field)
        };
        assert_eq!(plan(|_| {}), Ok(()));
        assert_eq!(plan(|plan| plan.base = Some("-x".to_owned())), Err("base"));
        assert_eq!(plan(|plan| plan.title = Some("a\nb".to_owned())), Err("title"));
        assert_eq!(plan(|plan| plan.body = Some("\u{1b}".to_owned())), Err("body"));
    }
}
