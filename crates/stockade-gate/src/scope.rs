//! Who is asking: a run, the worker's hold on it, and the policy it was frozen with.

use std::sync::Arc;

use stockade_domain::{Run, RunId};
use stockade_policy::{Policy, PolicyError};
use stockade_ports::Lease;

/// The identity under which a role asks the gate.
#[derive(Debug, Clone)]
pub struct Scope {
    run: RunId,
    lease: Lease,
    policy: Arc<Policy>,
}

impl Scope {
    /// The scope of a run, its policy compiled from what the run is frozen with.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] when the rules do not compile; then nothing of the run is admitted.
    pub fn of(run: &Run, lease: Lease) -> Result<Self, PolicyError> {
        let policy = Policy::compile(&run.spec.agent, &run.spec.environment)?;
        let repository = run.spec.repo.as_ref().map(|repo| repo.source.as_str());
        Ok(Self {
            run: run.id,
            lease,
            policy: Arc::new(
                policy
                    .for_run(run.id, repository)
                    .with_git_host(run.spec.git_host.clone()),
            ),
        })
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The worker's hold on it.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Its policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}
