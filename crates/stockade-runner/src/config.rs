//! What a runner is made of.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use stockade_gate::{Gate, Gated, kind, model::ModelDoor};
use stockade_ports::{Egress, GitHosts, Images, Sandbox};

/// Origin under which sandboxes reach the model gateway.
pub const LLM_URL: &str = "http://llm.stockade.internal";

/// Everything a runner is made of.
pub struct RunnerParts {
    /// The chokepoint.
    pub gate: Gate,
    /// Make sandboxes; a run names one of them.
    pub backends: Vec<Arc<dyn Sandbox>>,
    /// Brings images; without it every run works on the host's programs.
    pub images: Option<Arc<dyn Images>>,
    /// Serves their boundaries.
    pub egress: Arc<dyn Egress>,
    /// Opens git hosts with the operator's credentials; without it only what everybody may do works.
    pub git_hosts: Option<Gated<kind::Credential, dyn GitHosts>>,
    /// The built-in loop's way to models.
    pub door: ModelDoor,
    /// Signs receipts.
    pub sealer: SigningKey,
    /// Settings.
    pub config: RunnerConfig,
}

/// Settings of a runner.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Directory for the working files of runs; the runner owns `runs/` and `snapshots/` below it.
    pub state_dir: PathBuf,
    /// Where agents that speak ACP are installed, if any are.
    pub agents_dir: Option<PathBuf>,
    /// Origin of the model gateway as sandboxes see it, without a path.
    pub llm_url: String,
    /// The git program: a path, or a name looked up in `path`.
    pub git: PathBuf,
    /// `PATH` for git and its helpers.
    pub path: String,
    /// Longest time one git command of a clone may take.
    pub clone_timeout: Duration,
    /// Largest change that is exported, in bytes of patch.
    pub max_patch_bytes: u64,
    /// Most bytes of a tool's output that a model is shown; the middle is left out.
    pub tool_output_bytes: usize,
    /// Most tokens a model may answer with in one turn of the built-in loop.
    pub max_output_tokens: u32,
    /// Bytes of conversation above which the built-in loop forgets old tool output.
    pub max_conversation_bytes: usize,
    /// Longest time an agent may take from its start to a session.
    pub agent_start_timeout: Duration,
}

impl RunnerConfig {
    /// Defaults for everything but the state directory.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            agents_dir: None,
            llm_url: LLM_URL.to_owned(),
            git: PathBuf::from("git"),
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            clone_timeout: Duration::from_secs(900),
            max_patch_bytes: 64 << 20,
            tool_output_bytes: 24 << 10,
            max_output_tokens: 16_384,
            max_conversation_bytes: 600 << 10,
            agent_start_timeout: Duration::from_secs(90),
        }
    }
}
