//! What the installation offers: agents and environments.

use serde::{Deserialize, Serialize};
use stockade_domain::{AgentSpec, Environment, Failure};

/// An agent of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentItem {
    /// The agent.
    pub spec: AgentSpec,
    /// Whether runs that name no agent use it.
    pub default: bool,
    /// Why it cannot run here, if it cannot: not installed, or no provider for its wire.
    pub unavailable: Option<Failure>,
}

/// An environment of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentItem {
    /// The environment.
    pub spec: Environment,
    /// Whether runs that name no environment use it.
    pub default: bool,
}
