//! Installation tokens of a GitHub App, for one repository (docs.github.com, "Create an installation access token for
//! an app").

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use stockade_domain::Timestamp;

use super::{
    fetch::{Fetch, Minted, ask, refusal, token_of},
    jwt,
};

const VERSION: &str = "2022-11-28";

/// A repository as GitHub names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The account.
    pub owner: String,
    /// The repository, without `.git`.
    pub name: String,
}

impl Repository {
    /// The repository of a run's source: an `https`, `ssh` or `git@host:owner/name` address. `None` for a local path
    /// and everything else that names no repository of a server.
    pub fn of_source(source: &str) -> Option<Self> {
        let path = match source.split_once("://") {
            Some(("https" | "ssh", rest)) => rest.split_once('/')?.1,
            Some(_) => return None,
            // The scp-like form: no slash before the first colon (gitremote).
            None => source.split_once(':').filter(|(host, _)| !host.contains('/'))?.1,
        };
        let (owner, name) = path.trim_matches('/').split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        let fits = |text: &str| {
            (1..=100).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                && text != "."
                && text != ".."
        };
        (fits(owner) && fits(name)).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// Who asks for a token.
pub(super) struct App<'a> {
    pub(super) api_url: &'a str,
    pub(super) app_id: &'a str,
    pub(super) installation_id: u64,
    /// The private key.
    pub(super) pem: &'a [u8],
}

/// Why there is no token.
pub(super) enum NoToken {
    /// The secret cannot be used.
    Unusable(&'static str),
    /// The other side did not give one.
    Refused(String),
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: Timestamp,
    repositories: Option<Vec<GrantedRepository>>,
}

#[derive(Deserialize)]
struct GrantedRepository {
    full_name: String,
}

/// Asks for a token that reaches one repository.
pub(super) async fn mint(
    fetch: &dyn Fetch,
    app: &App<'_>,
    repository: &Repository,
    now: Timestamp,
) -> Result<Minted, NoToken> {
    let jwt = jwt::signed(app.app_id, app.pem, now).map_err(NoToken::Unusable)?;
    let (api, id) = (app.api_url.trim_end_matches('/'), app.installation_id);
    let body = json!({ "repositories": [repository.name] }).to_string();
    let request = Request::post(format!("{api}/app/installations/{id}/access_tokens"))
        .header("accept", "application/vnd.github+json")
        .header("authorization", format!("Bearer {}", *jwt))
        .header("content-type", "application/json")
        .header("user-agent", "stockade")
        .header("x-github-api-version", VERSION)
        .body(Bytes::from(body))
        .map_err(|_| NoToken::Refused("the API's address cannot be asked".to_owned()))?;
    let host = request.uri().host().unwrap_or_default().to_owned();
    let answer = ask(fetch, request).await.map_err(NoToken::Refused)?;
    if answer.status() != StatusCode::CREATED {
        let hint = match answer.status().as_u16() {
            401 => ": the key is not one of this app, or the clocks differ",
            404 => ": there is no such installation of this app",
            422 => ": the installation does not reach the run's repository",
            _ => "",
        };
        return Err(NoToken::Refused(refusal(&host, answer.status(), hint)));
    }
    let odd = |what: &str| NoToken::Refused(format!("{host} answered {what}"));
    let granted: Granted = serde_json::from_slice(answer.body()).map_err(|_| odd("no token that can be read"))?;
    // A server that does not know the parameter would give a token for everything.
    let wanted = repository.full_name();
    let only = granted
        .repositories
        .as_ref()
        .is_some_and(|all| all.len() == 1 && all.iter().all(|r| r.full_name.eq_ignore_ascii_case(&wanted)));
    if !only {
        return Err(odd("a token that is not for the run's repository alone"));
    }
    Ok(Minted {
        token: token_of(granted.token).ok_or_else(|| odd("a token that is none"))?,
        until: granted.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_repositories_or_not() {
        for source in [
            "https://github.com/acme/app",
            "https://github.com/acme/app.git",
            "https://user:x@github.com/acme/app/",
            "ssh://git@github.com/acme/app.git",
            "git@github.com:acme/app.git",
        ] {
            let found = Repository::of_source(source).unwrap_or_else(|| panic!("{source}"));
            assert_eq!(found.full_name(), "acme/app");
        }
        for source in [
            "/srv/git/app",
            "./a/b",
            "file:///srv/a/b",
            "https://github.com/acme",
            "https://h/a/b/c",
            "https://h/a/..",
            "http://h/a/b",
            "a/b:c/d",
            "",
        ] {
            assert_eq!(Repository::of_source(source), None, "{source}");
        }
    }
}
