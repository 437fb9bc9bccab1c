//! Secrets: what they are called, never what they are.

use serde::{Deserialize, Serialize};
use stockade_domain::{SecretName, Timestamp};

/// A secret of the team. Its value goes in with `PUT /v1/secrets/{name}` and never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What environments call it.
    pub name: SecretName,
    /// 1, and one more with every value put since.
    pub version: u64,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When its value was last put.
    pub updated_at: Timestamp,
}
