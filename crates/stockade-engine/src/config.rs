//! Settings of the embedded engine.

use std::{path::PathBuf, time::Duration};

/// How an engine works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Runs in hand at once, at least 1. A run that waits for a person with its sandbox
    /// alive is in hand.
    pub max_concurrent: usize,
    /// How often the store is asked without a hint, deadlines are looked at and approvals
    /// expired.
    pub tick: Duration,
    /// How long an activity may take to stop after it was asked to; then it is dropped.
    pub grace: Duration,
    /// How often a store or a seal that fails for the moment is tried before the run is
    /// left to the recovery at the next start; at least 1.
    pub attempts: u32,
    /// The file whose lock keeps a second engine away; its directory must exist.
    pub lock_path: PathBuf,
}

impl EngineConfig {
    /// Ordinary settings with this lock.
    pub fn new(lock_path: impl Into<PathBuf>) -> Self {
        Self {
            max_concurrent: 4,
            tick: Duration::from_millis(500),
            grace: Duration::from_secs(20),
            attempts: 5,
            lock_path: lock_path.into(),
        }
    }
}
