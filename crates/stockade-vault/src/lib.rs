//! The vault: secrets of teams, sealed with the installation's key and kept in the store.
//!
//! The store sees sealed bytes only, and the key never goes into the store: who has one of them has no secret.
//! [`seal`] says what sealed bytes look like; [`Vault`] is the port.

#![forbid(unsafe_code)]

mod key;
pub mod seal;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stockade_domain::{SecretName, TeamId, Timestamp};
use stockade_ports::{MAX_SECRET_BYTES, OpenSecret, SecretError, SecretInfo, SecretValue, Secrets, Store};

pub use key::{InstallationKey, InvalidKey};

/// Secrets of teams over a store.
pub struct Vault {
    store: Arc<dyn Store>,
    key: InstallationKey,
}

impl Vault {
    /// A vault that seals with this key.
    pub fn new(store: Arc<dyn Store>, key: InstallationKey) -> Self {
        Self { store, key }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

#[async_trait]
impl Secrets for Vault {
    async fn put(
        &self,
        team: TeamId,
        name: &SecretName,
        value: SecretValue,
        now: Timestamp,
    ) -> Result<SecretInfo, SecretError> {
        if !(1..=MAX_SECRET_BYTES).contains(&value.len()) {
            return Err(SecretError::Size(value.len()));
        }
        let sealed = seal::seal(&self.key, team, name, &value)?;
        drop(value);
        let record = self.store.put_secret(team, name, sealed.into(), now).await?;
        Ok(record.into())
    }

    async fn list(&self, team: TeamId) -> Result<Vec<SecretInfo>, SecretError> {
        let records = self.store.secrets(team).await?;
        Ok(records.into_iter().map(SecretInfo::from).collect())
    }

    async fn remove(&self, team: TeamId, name: &SecretName) -> Result<SecretInfo, SecretError> {
        Ok(self.store.remove_secret(team, name).await?.into())
    }

    async fn open(&self, team: TeamId, name: &SecretName) -> Result<OpenSecret, SecretError> {
        let record = self.store.secret(team, name).await?;
        let value = seal::open(&self.key, team, name, &record.sealed)?;
        Ok(OpenSecret {
            value,
            version: record.version,
        })
    }
}
