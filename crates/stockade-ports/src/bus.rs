//! The bus port: hints that something may have changed. The store is the truth.

use async_trait::async_trait;
use stockade_domain::RunId;
use tokio::sync::broadcast;

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// New events, messages, decisions or states of this run.
    Run(RunId),
    /// A run may have become claimable.
    Queue,
    /// Hosts were taken away from an environment, or given back.
    Revocations,
}

/// Carries hints. Hints may be lost, doubled or late: every listener re-reads the store,
/// on a hint and from time to time without one.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Sends a hint. Never fails and never waits for listeners.
    async fn publish(&self, topic: Topic);

    /// Listens from now on. A lagging receiver just re-reads the store.
    fn subscribe(&self) -> broadcast::Receiver<Topic>;
}
