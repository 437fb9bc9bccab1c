//! Makes the place a run works in: repository, image, sandbox, boundary, and the proof that
//! they hold.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stockade_domain::{AgentKind, EventType, Failure, NewEvent, Run};
use stockade_gate::Scope;
use stockade_ports::{
    FreshSandbox, Lease, Measurement, ProbePlan, RootFs, SandboxEvidence, SandboxHandle, SandboxSpec, Witness, prove,
};

use crate::{
    Runner, RunnerParts, backend, harness,
    live::{Live, Place, fresh_dir},
    mishap,
    progress::Progress,
    publish,
    repo::{self, Brought},
    trust::Trusting,
};

impl Runner {
    /// Provisions; whatever it made before an error is the cleanup's to remove.
    pub(crate) async fn make_place(&self, run: &Run, lease: Lease, live: &Live) -> Result<(), Failure> {
        let config = &self.parts.config;
        let scope = Scope::of(run, lease).map_err(|e| mishap::policy(&e))?;
        let sandboxes = backend::find(&self.parts.backends, &run.spec.backend)?;
        let images = self.parts.images.as_deref();
        backend::check_backend(&run.spec, &sandboxes.capabilities(), images, &config.state_dir)?;
        let agents_dir = match &run.spec.agent.kind {
            AgentKind::Builtin { .. } => None,
            AgentKind::Harness(profile) => {
                harness::require(&run.spec.agent.name, profile, config.agents_dir.as_deref())?;
                config.agents_dir.clone()
            }
        };
        fresh_dir(&live.dir).await?;
        let repo = self.repository(run, &scope, live).await?;
        let restore = run.spec.snapshot.from.as_deref();
        let spec = SandboxSpec {
            run: run.id,
            rootfs: self.rootfs(run, &scope).await?,
            limits: run.spec.environment.limits,
            workspace: Some(repo.tree.clone()),
            base_git: Some(repo.base_git.clone()),
            agents_dir,
            restore: restore.map(|d| backend::archive(&config.state_dir, d)).transpose()?,
        };
        if let Some(digest) = restore {
            Progress::begin(&self.parts.gate, &scope, "restore", digest).await;
        }
        let fresh = sandboxes.create(spec).await.map_err(mishap::sandbox)?;
        let facts = fresh.evidence();
        let (sandbox, measured) = self.prove(run, lease, live, fresh).await?;
        live.serve_git(config, &repo.base_git).await?;
        let trusting = match live.trust() {
            Some(trust) => Trusting::place(&*sandbox, trust).await?,
            None => Trusting::default(),
        };
        let trusting = trusting.impatient().with(live.variables());
        let events = vec![
            NewEvent::new(EventType::SandboxReady, evidence(&facts, &measured, run)),
            NewEvent::new(EventType::RepoReady, repo_ready(&repo, run)),
        ];
        live.settle_in(Place {
            scope: scope.clone(),
            sandbox,
            repo,
            trusting,
        });
        self.parts
            .gate
            .record(&scope, events)
            .await
            .map_err(|e| mishap::store(&e))
    }

    /// Copies the repository, with the credential of its server where the operator has given one.
    async fn repository(&self, run: &Run, scope: &Scope, live: &Live) -> Result<Brought, Failure> {
        let RunnerParts { gate, config, .. } = &self.parts;
        let spec = run.spec.repo.as_ref();
        let hosts = self.hosts(gate, run, scope);
        let repo = match hosts.git("fetch").await? {
            None => repo::bring(config, spec, None, &live.dir).await?,
            Some(used) => {
                let brought = repo::bring(config, spec, Some(&used.lent), &live.dir).await;
                used.ended(brought).await?
            }
        };
        repo::name_origin(config, &repo.tree, run.id, &run.spec).await?;
        // Before the agent costs anything.
        publish::base_of(config, run, &repo).await?;
        Ok(repo)
    }

    /// Hands the boundary to the Guard and measures from inside; only then is there a handle.
    async fn prove(
        &self,
        run: &Run,
        lease: Lease,
        live: &Live,
        mut fresh: Box<dyn FreshSandbox>,
    ) -> Result<(Arc<dyn SandboxHandle>, Measurement), Failure> {
        let Some(boundary) = fresh.take_boundary() else {
            let message = format!("the {} sandbox came without its boundary", run.spec.backend);
            return Err(Failure::terminal("no_boundary", message));
        };
        let session = self.parts.egress.guard(run, lease, boundary).await;
        let session: Arc<_> = Arc::from(session.map_err(|e| mishap::egress(&e))?);
        live.guard(Arc::clone(&session));
        let canary = self.canary().await?;
        let plan = ProbePlan::standard(Some(canary as Arc<dyn Witness>));
        prove(fresh, &plan, &*session).await.map_err(mishap::sandbox)
    }

    async fn rootfs(&self, run: &Run, scope: &Scope) -> Result<RootFs, Failure> {
        let image = &run.spec.environment.image;
        match &self.parts.images {
            Some(images) if image != backend::HOST_IMAGE => {
                let progress = Progress::begin(&self.parts.gate, scope, "image", image).await;
                let tree = images.prepare(image, &progress).await;
                tree.map(RootFs::Image).map_err(|e| mishap::image(&e))
            }
            // An image without a store was refused by `check_backend`.
            _ => Ok(RootFs::Host),
        }
    }
}

fn evidence(evidence: &SandboxEvidence, measured: &Measurement, run: &Run) -> Value {
    let checks = measured.checks.iter();
    let checks: Map<_, _> = checks.map(|c| (c.name.to_owned(), json!(c.seen))).collect();
    json!({
        "backend": evidence.backend, "mode": evidence.mode, "image": evidence.image,
        "limits": evidence.limits, "start_ms": evidence.start_ms, "warm": evidence.warm,
        "attempt": run.machine.attempt, "measured": checks, "measured_us": measured.micros,
    })
}

fn repo_ready(repo: &Brought, run: &Run) -> Value {
    json!({
        "source": run.spec.repo.as_ref().map(|repo| &repo.source), "base_commit": repo.base_commit,
        "branch": repo.branch, "files": repo.files, "notes": repo.notes,
    })
}
