//! Makes the place a run works in: repository, sandbox, boundary.

use std::sync::Arc;

use serde_json::json;
use stockade_domain::{AgentKind, EventType, Failure, NewEvent, Run};
use stockade_gate::Scope;
use stockade_ports::{Lease, SandboxEvidence, SandboxSpec};

use crate::{
    Runner, harness,
    live::{Live, Place, fresh_dir},
    mishap,
    repo::{self, Brought},
};

impl Runner {
    /// Provisions; whatever it made before an error is the cleanup's to remove.
    pub(crate) async fn make_place(&self, run: &Run, lease: Lease, live: &Live) -> Result<(), Failure> {
        let config = &self.parts.config;
        let scope = Scope::of(run, lease).map_err(|e| mishap::policy(&e))?;
        let agents_dir = match &run.spec.agent.kind {
            AgentKind::Builtin { .. } => None,
            AgentKind::Harness(profile) => {
                harness::require(&run.spec.agent.name, profile, config.agents_dir.as_deref())?;
                config.agents_dir.clone()
            }
        };
        fresh_dir(&live.dir).await?;
        let repo = repo::bring(config, run.spec.repo.as_ref(), &live.dir).await?;
        let spec = SandboxSpec {
            run: run.id,
            image: run.spec.environment.image.clone(),
            limits: run.spec.environment.limits,
            workspace: Some(repo.tree.clone()),
            base_git: Some(repo.base_git.clone()),
            agents_dir,
        };
        let mut sandbox = self.parts.sandbox.create(spec).await.map_err(mishap::sandbox)?;
        let Some(boundary) = sandbox.take_boundary() else {
            return Err(Failure::terminal(
                "no_boundary",
                format!("the {} sandbox came without its boundary", self.parts.sandbox.name()),
            ));
        };
        let session = self
            .parts
            .egress
            .guard(run, lease, boundary)
            .await
            .map_err(|e| mishap::egress(&e))?;
        live.guard(session);
        let events = vec![
            NewEvent::new(EventType::SandboxReady, evidence(&sandbox.evidence(), run)),
            NewEvent::new(EventType::RepoReady, repo_ready(&repo, run)),
        ];
        live.settle_in(Place {
            scope: scope.clone(),
            sandbox: Arc::from(sandbox),
            repo,
        });
        self.parts
            .gate
            .record(&scope, events)
            .await
            .map_err(|e| mishap::store(&e))
    }
}

fn evidence(evidence: &SandboxEvidence, run: &Run) -> serde_json::Value {
    json!({
        "backend": evidence.backend, "mode": evidence.mode, "image": evidence.image,
        "limits": evidence.limits, "start_ms": evidence.start_ms, "attempt": run.machine.attempt,
    })
}

fn repo_ready(repo: &Brought, run: &Run) -> serde_json::Value {
    json!({
        "source": run.spec.repo.as_ref().map(|repo| &repo.source), "base_commit": repo.base_commit,
        "branch": repo.branch, "files": repo.files, "notes": repo.notes,
    })
}
