//! Secrets of teams: values that are put in, used, and never read back.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretBox};
use stockade_domain::{SecretName, TeamId, Timestamp};
use zeroize::Zeroize as _;

use crate::StoreError;

/// Largest secret, in bytes; 64 KiB.
pub const MAX_SECRET_BYTES: usize = 64 << 10;

/// The value of a secret: bytes that cannot be printed, compared or serialized, and that are overwritten when
/// dropped.
pub struct SecretValue(SecretBox<[u8]>);

impl SecretValue {
    /// Takes a value over. What the vector held is overwritten where it had to be moved.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let exact = Box::from(bytes.as_slice());
        bytes.zeroize();
        Self(SecretBox::new(exact))
    }

    /// The value in clear, for the one place that needs it.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl Clone for SecretValue {
    fn clone(&self) -> Self {
        Self(SecretBox::new(Box::from(self.expose())))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// A secret as it is kept: sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRecord {
    /// The tenant.
    pub team: TeamId,
    /// What the team calls it.
    pub name: SecretName,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When its value was last put.
    pub updated_at: Timestamp,
    /// 1, and one more with every value put since.
    pub version: u64,
    /// The value, encrypted; only the vault that sealed it can read it.
    pub sealed: Bytes,
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// What the team calls it.
    pub name: SecretName,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When its value was last put.
    pub updated_at: Timestamp,
    /// 1, and one more with every value put since.
    pub version: u64,
}

impl From<SecretRecord> for SecretInfo {
    fn from(record: SecretRecord) -> Self {
        Self {
            name: record.name,
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }
}

/// A secret with its value, on the way into a request.
#[derive(Debug, Clone)]
pub struct OpenSecret {
    /// The value.
    pub value: SecretValue,
    /// Which of the values that were put under this name.
    pub version: u64,
}

/// Why a secret was not kept or opened. Names no secret and holds no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store refused or does not answer; also that there is no such secret.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The value is empty or larger than [`MAX_SECRET_BYTES`].
    #[error("a secret has 1 to {MAX_SECRET_BYTES} bytes, this one has {0}")]
    Size(usize),
    /// What is stored was not sealed with this installation's key.
    #[error("a stored secret was sealed with another installation key; restore that key, or set the secret again")]
    OtherKey,
    /// What is stored is not what was sealed.
    #[error("a stored secret cannot be opened: it was changed on disk or moved to another name or team; set it again")]
    Damaged,
    /// The system gives no random numbers, so nothing can be sealed.
    #[error("the system gives no random numbers, so the secret was not kept")]
    NoRandomness,
}

/// Keeps the secrets of teams, encrypted. Values go in and are opened for use; no list and no answer holds one.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Keeps a value under a name, in the place of an earlier one.
    async fn put(
        &self,
        team: TeamId,
        name: &SecretName,
        value: SecretValue,
        now: Timestamp,
    ) -> Result<SecretInfo, SecretError>;

    /// The secrets of a team by name.
    async fn list(&self, team: TeamId) -> Result<Vec<SecretInfo>, SecretError>;

    /// Removes a secret; it is gone from the next request on.
    async fn remove(&self, team: TeamId, name: &SecretName) -> Result<SecretInfo, SecretError>;

    /// Opens a secret for use.
    async fn open(&self, team: TeamId, name: &SecretName) -> Result<OpenSecret, SecretError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_does_not_print_itself() {
        let value = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(
            (value.expose(), value.len(), value.is_empty()),
            (&b"hunter2"[..], 7, false)
        );
        let open = OpenSecret {
            value: value.clone(),
            version: 1,
        };
        assert_eq!(format!("{value:?} {open:?}").matches("hunter2").count(), 0);
    }
}
