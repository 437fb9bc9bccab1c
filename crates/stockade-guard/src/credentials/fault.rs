//! Why a request goes out without a credential, or not at all.

use stockade_domain::SecretName;
use stockade_ports::SecretError;

use super::placeholder::Place;

/// A refusal. Holds no value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialFault {
    /// A placeholder where no credential belongs: another host, path or place, of another run, or made up.
    #[error("the {0} of the request holds a placeholder of a credential, and this request gets none there")]
    Placeholder(Place),
    /// More than one value where the secret would stand; a server could read either.
    #[error("the request has several values of '{0}', where its credential belongs; send at most one")]
    SeveralValues(String),
    /// The environment names a secret that the team has not set.
    #[error("the secret '{0}' is not set; set it with `stockade secret set {0}`")]
    Missing(SecretName),
    /// The value cannot stand in a request.
    #[error("the secret '{secret}' cannot be used: {why}")]
    Unusable {
        /// The secret.
        secret: SecretName,
        /// What is wrong and what to do.
        why: &'static str,
    },
    /// The secret cannot be opened now.
    #[error("the secret '{secret}' cannot be opened")]
    Unavailable {
        /// The secret.
        secret: SecretName,
        /// Why.
        #[source]
        cause: SecretError,
    },
    /// No token could be had for the secret.
    #[error("no token for '{secret}': {why}")]
    Mint {
        /// The secret.
        secret: SecretName,
        /// What the other side said, without its words.
        why: String,
    },
    /// The answer to a request with a credential is in a form that cannot be searched for it.
    #[error("the answer to a request with a credential is {0}, so it cannot be searched for the secret")]
    Opaque(&'static str),
    /// The binding names no host or path that a rule could name.
    #[error("the credential '{secret}' is bound to something that cannot be: {why}")]
    Binding {
        /// The secret.
        secret: SecretName,
        /// What is wrong and what to do.
        why: String,
    },
    /// The system gives no random numbers for placeholders.
    #[error("the system gives no random numbers for placeholders")]
    NoRandomness,
}

impl CredentialFault {
    /// The fault as events spell it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Placeholder(_) => "credential_placeholder",
            Self::SeveralValues(_) => "credential_several_values",
            Self::Missing(_) => "credential_missing",
            Self::Unusable { .. } => "credential_unusable",
            Self::Unavailable { .. } => "credential_unavailable",
            Self::Mint { .. } => "credential_mint",
            Self::Opaque(_) => "credential_opaque_answer",
            Self::Binding { .. } => "credential_binding",
            Self::NoRandomness => "credential_no_randomness",
        }
    }
}
