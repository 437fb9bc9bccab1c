//! The secret of the red team's world. It is made for one attack and opens nothing.

use async_trait::async_trait;
use stockade_domain::{SecretName, TeamId, Timestamp};
use stockade_ports::{OpenSecret, SecretError, SecretInfo, SecretValue, Secrets, StoreError};

/// Holds one value under every name.
pub(super) struct Chest(pub(super) String);

fn refused() -> SecretError {
    let (what, id) = ("secret", "that may be changed".to_owned());
    SecretError::Store(StoreError::NotFound { what, id })
}

#[async_trait]
impl Secrets for Chest {
    async fn put(&self, _: TeamId, _: &SecretName, _: SecretValue, _: Timestamp) -> Result<SecretInfo, SecretError> {
        Err(refused())
    }

    async fn list(&self, _: TeamId) -> Result<Vec<SecretInfo>, SecretError> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: TeamId, _: &SecretName) -> Result<SecretInfo, SecretError> {
        Err(refused())
    }

    async fn open(&self, _: TeamId, _: &SecretName) -> Result<OpenSecret, SecretError> {
        let value = SecretValue::new(self.0.clone().into_bytes());
        Ok(OpenSecret { value, version: 1 })
    }
}
