//! Credentials of an environment: which secret goes into which request.
//!
//! This is the data and its syntax. The Guard matches requests against it and puts the secret in; a sandbox never
//! holds one. A binding that could be read in two ways is refused when it is read, with what to write instead.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

mod check;

/// Most bindings of an environment.
const MOST: usize = 64;

/// What a team calls one of its secrets: a letter, then up to 63 letters, digits, `_`, `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that cannot name a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' cannot name a secret: write a letter, then up to 63 letters, digits, '_', '.' or '-'",
    .0.escape_debug()
)]
pub struct InvalidSecretName(String);

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretName;

    fn from_str(text: &str) -> Result<Self, InvalidSecretName> {
        let bytes = text.as_bytes();
        let fits = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphabetic()
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidSecretName(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = InvalidSecretName;

    fn try_from(text: String) -> Result<Self, InvalidSecretName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a secret stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialKind {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617) with the secret as the password.
    Basic {
        /// The user.
        username: String,
    },
    /// A header of its own.
    Header {
        /// The header.
        name: String,
        /// What stands before the secret, for example `Token `.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
    },
    /// A parameter of the query string.
    Query {
        /// The parameter.
        name: String,
    },
    /// An installation token of a GitHub App, for the run's repository only. The secret is the app's private key (PEM).
    GithubApp {
        /// The app's id (or client id): who signs.
        app_id: String,
        /// The installation the token is for.
        installation_id: u64,
        /// The API, for a GitHub of one's own.
        #[serde(default = "github_api", skip_serializing_if = "is_github_api")]
        api_url: String,
    },
    /// An access token of the OAuth 2.0 client credentials grant (RFC 6749, section 4.4). The secret is the client's.
    OauthClient {
        /// The token endpoint, `https`.
        token_url: String,
        /// The client.
        client_id: String,
        /// What is asked for; the server's default when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
}

fn github_api() -> String {
    "https://api.github.com".to_owned()
}

fn is_github_api(url: &String) -> bool {
    *url == github_api()
}

impl CredentialKind {
    /// The kind as events spell it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
            Self::Query { .. } => "query",
            Self::GithubApp { .. } => "github_app",
            Self::OauthClient { .. } => "oauth_client",
        }
    }

    /// Checks a kind that stands alone.
    ///
    /// # Errors
    ///
    /// In words what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        check::kind_fault(self).map_or(Ok(()), Err)
    }
}

/// Which secret goes into which requests, and how.
///
/// A request is covered when its host, method and path all are. Only requests over TLS are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct CredentialBinding {
    /// The team's secret.
    pub secret: SecretName,
    /// How it stands in the request.
    pub kind: CredentialKind,
    /// Host names in lower case, exact or with one leading `*.` (which does not cover the bare name), with an
    /// optional `:port`; without one, port 443.
    pub hosts: Vec<String>,
    /// Methods in upper case; empty means every method but `TRACE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Beginnings of paths, compared by whole segments; empty means every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The variable that holds the placeholder inside the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// A binding as it was written, before it was checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    secret: SecretName,
    kind: CredentialKind,
    hosts: Vec<String>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    env: Option<String>,
}

/// What is wrong with a binding and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("credential '{secret}': {field}: {cause}")]
pub struct CredentialError {
    /// The secret of the binding.
    pub secret: SecretName,
    /// The part that is wrong.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub cause: String,
}

impl TryFrom<Written> for CredentialBinding {
    type Error = CredentialError;

    fn try_from(written: Written) -> Result<Self, CredentialError> {
        let Written {
            secret,
            kind,
            hosts,
            methods,
            paths,
            env,
        } = written;
        let binding = Self {
            secret,
            kind,
            hosts,
            methods,
            paths,
            env,
        };
        binding.check()?;
        Ok(binding)
    }
}

impl CredentialBinding {
    /// Checks a binding that was put together by a program; one that was read has passed already.
    ///
    /// # Errors
    ///
    /// The first part that cannot be used.
    pub fn check(&self) -> Result<(), CredentialError> {
        check::fault(self).map_or(Ok(()), |(field, cause)| {
            Err(CredentialError {
                secret: self.secret.clone(),
                field,
                cause,
            })
        })
    }
}

/// Checks all bindings of an environment together.
///
/// # Errors
///
/// A binding that cannot be used, a variable that two of them set, or too many.
pub fn check_all(bindings: &[CredentialBinding]) -> Result<(), CredentialError> {
    let wrong = |binding: &CredentialBinding, field, cause: String| {
        Err(CredentialError {
            secret: binding.secret.clone(),
            field,
            cause,
        })
    };
    let mut variables = BTreeSet::new();
    for (place, binding) in bindings.iter().enumerate() {
        binding.check()?;
        if place >= MOST {
            let cause = format!("an environment takes at most {MOST} of them");
            return wrong(binding, "credentials", cause);
        }
        if let Some(name) = &binding.env
            && !variables.insert(name)
        {
            return wrong(binding, "env", format!("'{name}' is set by another credential as well"));
        }
    }
    Ok(())
}

/// Reads the `credentials` of an environment.
pub(crate) fn read_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CredentialBinding>, D::Error> {
    let bindings = Vec::<CredentialBinding>::deserialize(deserializer)?;
    check_all(&bindings).map_err(D::Error::custom)?;
    Ok(bindings)
}

#[cfg(test)]
mod tests;
