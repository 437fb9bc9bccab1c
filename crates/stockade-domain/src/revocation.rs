//! Revocations: what an operator takes away from the runs of an environment at once.
//!
//! An environment is frozen when a run starts. A revocation is what reaches a run nevertheless: it
//! only ever takes away, and stays in force until somebody lifts it.

use serde::{Deserialize, Serialize};

use crate::{RevocationId, TeamId, Timestamp};

/// The rule of everything that is refused because of a revocation.
pub const REVOKED: &str = "revoked";

/// Hosts that the runs of an environment may no longer reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its id.
    pub id: RevocationId,
    /// The tenant whose runs it is about.
    pub team: TeamId,
    /// The environment, by name.
    pub environment: String,
    /// The hosts: a name, `*.suffix` (every name below), or `*` for every host.
    pub hosts: String,
    /// Why.
    pub reason: String,
    /// Who revoked.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
    /// Who lifted it.
    #[serde(default)]
    pub lifted_by: Option<String>,
    /// When it was lifted; it is in force until then.
    #[serde(default)]
    pub lifted_at: Option<Timestamp>,
}

impl Revocation {
    /// Whether it is in force.
    pub fn holds(&self) -> bool {
        self.lifted_at.is_none()
    }

    /// Lifts it. The first one who does so stands.
    pub fn lift(&mut self, by: String, now: Timestamp) {
        if self.holds() {
            (self.lifted_by, self.lifted_at) = (Some(by), Some(now));
        }
    }
}
