//! What the installation offers, and the checks that only the host can make.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use stockade_domain::{AgentSpec, Environment, Failure, GitHost, Limits, RepoSpec, RunSpec, Wire};

/// Whether an agent can run here: installed, and its wire answered by the provider.
pub type AgentCheck = Arc<dyn Fn(&AgentSpec) -> Result<(), Failure> + Send + Sync>;

/// Whether a run's backend can give what the run asks for: its image, its snapshot, its limits.
pub type BackendCheck = Arc<dyn Fn(&RunSpec) -> Result<(), Failure> + Send + Sync>;

/// Agents, environments and defaults, as configured.
#[derive(Clone)]
pub struct Catalog {
    /// Agents by name.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Environments by name.
    pub environments: BTreeMap<String, Environment>,
    /// The agent of requests that name none.
    pub default_agent: String,
    /// The environment of requests that name none.
    pub default_environment: String,
    /// The model when neither request nor agent names one.
    pub default_model: Option<String>,
    /// The model provider's name; without one no run is created.
    pub provider: Option<String>,
    /// The wires the provider answers.
    pub wires: Vec<Wire>,
    /// Sandbox backends; the first is the default.
    pub backends: Vec<String>,
    /// Git servers that the operator has named.
    pub git_hosts: Vec<GitHost>,
    /// Limits under those of the agent and the request.
    pub limits: Limits,
    /// Whether an agent can run here.
    pub agent_check: AgentCheck,
    /// Whether a backend can give what a run asks for.
    pub backend_check: BackendCheck,
}

/// Looks at a repository before anything is created for it.
#[async_trait]
pub trait RepoProbe: Send + Sync {
    /// Whether the repository is there and can be used; the failure says what is wrong and what to do.
    async fn check(&self, repo: &RepoSpec) -> Result<(), Failure>;
}
