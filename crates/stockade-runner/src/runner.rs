//! The runner: the engine's activities, done for real.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use stockade_domain::{AgentKind, EventType, Failure, NewEvent, RepoSpec, Run, RunId, RunResult};
use stockade_gate::{Gate, Scope};
use stockade_ports::{Activities, Lease, SandboxError};
use tokio::sync::OnceCell;

use crate::{
    RunnerConfig, RunnerParts, builtin,
    canary::Canary,
    export, harness,
    hosts::Hosts,
    keep, limits,
    live::{Live, Stage, dir_of, remove_dir},
    mishap,
    publish::{Publishing, resumed},
    pulse::{self, Pulse},
    repo, seal,
};

/// How long a stopped agent may take to say goodbye.
const GRACE: Duration = Duration::from_secs(5);

/// Provisions, drives, exports and cleans up runs.
pub struct Runner {
    pub(crate) parts: RunnerParts,
    lives: Mutex<HashMap<RunId, Arc<Live>>>,
    canary: OnceCell<Arc<Canary>>,
}

impl Runner {
    /// A runner made of these parts.
    pub fn new(parts: RunnerParts) -> Self {
        Self {
            parts,
            lives: Mutex::new(HashMap::new()),
            canary: OnceCell::new(),
        }
    }

    /// Says early what is wrong with a repository somebody names; see [`crate::check_repo`].
    ///
    /// # Errors
    ///
    /// As [`crate::check_repo`].
    pub async fn check_repo(&self, spec: &RepoSpec) -> Result<(), Failure> {
        repo::check_repo(&self.parts.config, spec).await
    }

    /// The canary every sandbox of this process is measured against.
    pub(crate) async fn canary(&self) -> Result<Arc<Canary>, Failure> {
        let start = || async { Canary::start().await.map(Arc::new) };
        let canary = self.canary.get_or_try_init(start).await;
        canary.cloned().map_err(|e| mishap::io("starting the canary", &e))
    }

    /// Removes the working files of runs that an earlier process left, and counts them.
    async fn reap(&self) -> Result<u32, Failure> {
        let runs = self.parts.config.state_dir.join("runs");
        let mut entries = match tokio::fs::read_dir(&runs).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(mishap::io(&format!("reading {}", runs.display()), &error)),
        };
        let mut removed = 0;
        while let Some(entry) = entries.next_entry().await.map_err(|e| mishap::io("reading runs", &e))? {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
            if id.is_some_and(|id| self.find(id).is_none()) {
                remove_dir(&entry.path()).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The life of a run, begun if it has none.
    fn live(&self, run: RunId) -> Arc<Live> {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || Arc::new(Live::new(dir_of(&self.parts.config.state_dir, run)));
        Arc::clone(lives.entry(run).or_insert_with(begin))
    }

    fn find(&self, run: RunId) -> Option<Arc<Live>> {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.get(&run).cloned()
    }

    fn forget(&self, run: RunId) -> Option<Arc<Live>> {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.remove(&run)
    }

    async fn run_agent(&self, run: &Run, live: &Live) -> Result<(), Failure> {
        let place = live.settled()?;
        let stage = Stage {
            gate: &self.parts.gate,
            config: &self.parts.config,
            run,
            live,
            place,
            pulse: Pulse::new(),
        };
        let limit = Duration::from_secs(run.spec.limits.inactivity_seconds.max(1));
        let pulse = stage.pulse.clone();
        let work = async {
            match &run.spec.agent.kind {
                AgentKind::Builtin { tools } => builtin::drive(&stage, &self.parts.door, tools).await,
                AgentKind::Harness(profile) => harness::drive(&stage, profile).await,
            }
        };
        let stopping = async {
            live.stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let done = tokio::select! {
            done = Box::pin(work) => done,
            silent = pulse::silence(&self.parts.gate, run.id, limit, &pulse) => Err(silent),
            reason = place.sandbox.ended() => Err(Failure::unknown("sandbox_gone", format!("the sandbox ended: {reason}"))),
            reason = live.unguarded() => Err(Failure::unknown("guard_lost", format!("nobody guards the sandbox any more: {reason}"))),
            never = limits::watch(&self.parts.gate, live, place) => match never {},
            () = stopping => Err(mishap::stopped()),
        };
        limits::look(&self.parts.gate, live, place).await;
        done.map_err(|failure| limits::named(failure, &live.limits(), &live.traffic_limits()))
    }

    /// How a run comes to its git host.
    pub(crate) fn hosts<'a>(&'a self, gate: &'a Gate, run: &'a Run, scope: &'a Scope) -> Hosts<'a> {
        Hosts {
            gate,
            doors: self.parts.git_hosts.as_ref(),
            run,
            scope,
        }
    }

    /// The change, and the writable layer where it is wanted.
    async fn bring_out(&self, run: &Run, live: &Live) -> Result<RunResult, Failure> {
        let RunnerParts { gate, config, .. } = &self.parts;
        let kept = async {
            let result = match resumed::kept(gate, config, run, live).await? {
                Some(result) => return Ok(result),
                None => export::export(gate, config, run, live).await?,
            };
            keep::snapshot(gate, config, run, live).await?;
            Ok(result)
        };
        let kept = kept.await;
        // What ran on behind the agent, or the export itself, may have met one since it was looked last.
        limits::look(gate, live, live.settled()?).await;
        let result = kept.map_err(|failure| limits::named(failure, &live.limits(), &live.traffic_limits()))?;
        Ok(RunResult {
            limits_hit: [limits::spelled(&live.limits()), live.traffic_limits()].concat(),
            ..result
        })
    }

    /// Pushes the change and opens the pull request, where that was asked for. The sandbox is gone before: nothing of
    /// the agent's may still run while a person reads what it did.
    async fn publish(&self, run: &Run, live: &Live, result: RunResult) -> Result<RunResult, Failure> {
        let (Some(plan), Some(_)) = (&run.spec.publish, &result.commit) else {
            return Ok(result);
        };
        self.end_place(live).await;
        let RunnerParts { gate, config, .. } = &self.parts;
        let place = live.settled()?;
        let hosts = self.hosts(gate, run, &place.scope);
        let publication = Publishing {
            hosts,
            config,
            live,
            place,
            result: &result,
        }
        .publish(plan)
        .await;
        Ok(RunResult {
            publication: Some(Box::new(publication)),
            ..result
        })
    }

    /// Closes connections, destroys the sandbox, says so while events may still be appended.
    async fn end_place(&self, live: &Live) {
        if let Some(session) = live.unguard() {
            session.close().await;
        }
        let Some(place) = live.place().filter(|_| live.leave()) else {
            return;
        };
        let destroyed = place.sandbox.destroy().await;
        if let Err(error) = &destroyed {
            tracing::error!(run = %place.scope.run(), %error, "a sandbox was not destroyed whole; the reaper tries again at boot");
        }
        let data = json!({
            "reason": "the run has no more use for it",
            "clean": destroyed.is_ok(),
        });
        let ended = NewEvent::new(EventType::SandboxEnded, data);
        if let Err(error) = self.parts.gate.record(&place.scope, vec![ended]).await {
            tracing::debug!(run = %place.scope.run(), %error, "the end of a sandbox came too late for the run's events");
        }
    }
}

#[async_trait]
impl Activities for Runner {
    async fn recover(&self) -> Result<(), Failure> {
        let mut sandboxes = 0;
        for backend in &self.parts.backends {
            sandboxes += match backend.reap().await {
                Ok(reaped) => reaped.sandboxes,
                // A backend this host cannot run has left nothing that it could remove.
                Err(SandboxError::Unsupported { .. }) => 0,
                Err(error) => return Err(mishap::sandbox(error)),
            };
        }
        if let Some(images) = &self.parts.images
            && let Err(error) = images.collect().await
        {
            tracing::warn!(%error, "unused images stay where they are");
        }
        let removed = self.reap().await?;
        if sandboxes > 0 || removed > 0 {
            tracing::info!(sandboxes, runs = removed, "removed what an earlier process left");
        }
        Ok(())
    }

    async fn provision(&self, run: &Run, lease: Lease) -> Result<(), Failure> {
        if self.find(run.id).is_some_and(|live| live.place().is_some()) {
            self.cleanup(run.id).await;
        }
        let live = self.live(run.id);
        tokio::select! {
            () = live.stop.cancelled() => Err(mishap::stopped()),
            made = Box::pin(self.make_place(run, lease, &live)) => made,
        }
    }

    async fn drive(&self, run: &Run, _lease: Lease) -> Result<(), Failure> {
        let live = self.live(run.id);
        if live.stop.is_cancelled() {
            return Err(mishap::stopped());
        }
        if resumed::is_kept(&self.parts.gate, run).await? {
            return Ok(());
        }
        let done = self.run_agent(run, &live).await;
        // Whatever an agent ends with while it is being stopped, it ends because of that.
        if live.stop.is_cancelled() {
            Err(mishap::stopped())
        } else {
            done
        }
    }

    async fn export(&self, run: &Run, _lease: Lease) -> Result<RunResult, Failure> {
        let live = self.live(run.id);
        let result = tokio::select! {
            () = live.stop.cancelled() => Err(mishap::stopped()),
            result = Box::pin(self.bring_out(run, &live)) => result,
        };
        Box::pin(self.publish(run, &live, result?)).await
    }

    async fn stop(&self, run: RunId) {
        self.live(run).stop.cancel();
    }

    async fn cleanup(&self, run: RunId) {
        if let Some(live) = self.forget(run) {
            self.end_place(&live).await;
        }
        if let Err(failure) = remove_dir(&dir_of(&self.parts.config.state_dir, run)).await {
            tracing::error!(%run, %failure, "working files of a run stay behind until the next boot");
        }
    }

    async fn seal(&self, run: RunId) -> Result<(), Failure> {
        seal::seal(self.parts.gate.store().as_ref(), &self.parts.sealer, run).await
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let config: &RunnerConfig = &self.parts.config;
        f.debug_struct("Runner").field("config", config).finish_non_exhaustive()
    }
}
