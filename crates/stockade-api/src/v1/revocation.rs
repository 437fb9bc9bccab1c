//! Hosts taken away from the runs of an environment.

use serde::{Deserialize, Serialize};
use stockade_domain::{RevocationId, Timestamp};

/// A body of `POST /v1/environments/{name}/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRevocation {
    /// A name, `*.suffix` (every name below), an address, or `*` for every host.
    pub hosts: String,
    /// Why; runs and their receipts tell it.
    #[serde(default)]
    pub reason: String,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its id.
    pub id: RevocationId,
    /// The environment whose runs it is about.
    pub environment: String,
    /// The hosts.
    pub hosts: String,
    /// Why.
    pub reason: String,
    /// Who revoked.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
    /// Who lifted it.
    pub lifted_by: Option<String>,
    /// When it was lifted; it is in force until then.
    pub lifted_at: Option<Timestamp>,
}

impl From<stockade_domain::Revocation> for Revocation {
    fn from(revocation: stockade_domain::Revocation) -> Self {
        let stockade_domain::Revocation {
            id,
            team: _,
            environment,
            hosts,
            reason,
            by,
            created_at,
            lifted_by,
            lifted_at,
        } = revocation;
        Self {
            id,
            environment,
            hosts,
            reason,
            by,
            created_at,
            lifted_by,
            lifted_at,
        }
    }
}
