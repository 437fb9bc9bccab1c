//! A run that this runner has in hand.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use stockade_domain::{Failure, RunId};
use stockade_gate::{Gate, Scope};
use stockade_policy::files::ExportedFile;
use stockade_ports::{EgressSession, GitPlace, LimitHit, SandboxHandle, Trust};
use tokio_util::sync::CancellationToken;

use crate::{PushInspection, RunnerConfig, mishap, repo::Brought, trust::Trusting};

/// A run that this runner has in hand.
pub(crate) struct Live {
    /// Its working files.
    pub(crate) dir: PathBuf,
    /// Cancelled when the run is asked to stop.
    pub(crate) stop: CancellationToken,
    place: OnceLock<Place>,
    egress: Mutex<Option<Arc<dyn EgressSession>>>,
    summary: Mutex<String>,
    limits: Mutex<Vec<LimitHit>>,
    left: AtomicBool,
    facts: Mutex<Vec<ExportedFile>>,
}

/// What provisioning made.
pub(crate) struct Place {
    /// Under whose identity the run asks the gate.
    pub(crate) scope: Scope,
    /// The sandbox.
    pub(crate) sandbox: Arc<dyn SandboxHandle>,
    /// The repository.
    pub(crate) repo: Brought,
    /// What the agent's programs have to be told to believe.
    pub(crate) trusting: Trusting,
}

impl Live {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            stop: CancellationToken::new(),
            place: OnceLock::new(),
            egress: Mutex::new(None),
            summary: Mutex::new(String::new()),
            limits: Mutex::default(),
            left: AtomicBool::new(false),
            facts: Mutex::default(),
        }
    }

    /// Keeps what provisioning made.
    pub(crate) fn settle_in(&self, place: Place) {
        // A second place for one life cannot be: provisioning starts a new one.
        let _ = self.place.set(place);
    }

    /// Keeps the session that serves the boundary.
    pub(crate) fn guard(&self, session: Arc<dyn EgressSession>) {
        *lock(&self.egress) = Some(session);
    }

    /// Lets git through the boundary; packs that are looked into wait in the run's directory.
    pub(crate) async fn serve_git(&self, config: &RunnerConfig, base_git: &Path) -> Result<(), Failure> {
        let spool_dir = self.dir.join("spool");
        let made = tokio::fs::DirBuilder::new().mode(0o700).create(&spool_dir).await;
        made.map_err(|e| mishap::io("making a place for what is pushed", &e))?;
        let inspection = PushInspection::new(config.clone(), base_git.to_owned(), self.dir.join("pushes"));
        if let Some(session) = lock(&self.egress).as_ref() {
            session.serve_git(GitPlace {
                inspector: Arc::new(inspection),
                spool_dir,
            });
        }
        Ok(())
    }

    /// Resolves with the reason when the boundary is no longer served.
    pub(crate) async fn unguarded(&self) -> String {
        let session = lock(&self.egress).clone();
        match session {
            Some(session) => session.lost().await,
            None => "its boundary was never served".to_owned(),
        }
    }

    /// What programs inside have to believe, where the boundary is inspected.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let session = lock(&self.egress);
        session.as_ref().map_or_else(Vec::new, |session| session.variables())
    }

    pub(crate) fn trust(&self) -> Option<Trust> {
        lock(&self.egress).as_ref().and_then(|session| session.trust())
    }

    /// Takes the session, to close it.
    pub(crate) fn unguard(&self) -> Option<Arc<dyn EgressSession>> {
        lock(&self.egress).take()
    }

    /// Keeps what the rules see of the exported files.
    pub(crate) fn keep_facts(&self, facts: Vec<ExportedFile>) {
        *lock(&self.facts) = facts;
    }

    /// What the rules see of the exported files.
    pub(crate) fn facts(&self) -> Vec<ExportedFile> {
        lock(&self.facts).clone()
    }

    /// Whether the sandbox is still to be ended; true for whoever asks first.
    pub(crate) fn leave(&self) -> bool {
        !self.left.swap(true, Ordering::SeqCst)
    }

    /// What provisioning made, if it did.
    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.get()
    }

    /// What provisioning made.
    pub(crate) fn settled(&self) -> Result<&Place, Failure> {
        self.place
            .get()
            .ok_or_else(|| Failure::unknown("not_provisioned", "the run has no sandbox in this process"))
    }

    /// Keeps the agent's last words for the result.
    pub(crate) fn conclude(&self, words: &str) {
        words.clone_into(&mut lock(&self.summary));
    }

    /// Keeps the limits the sandbox ran into; gives those that are new.
    pub(crate) fn met(&self, hits: Vec<LimitHit>) -> Vec<LimitHit> {
        let mut known = lock(&self.limits);
        let fresh: Vec<_> = hits.into_iter().filter(|hit| !known.contains(hit)).collect();
        known.extend(&fresh);
        fresh
    }

    /// The limits the sandbox ran into so far.
    pub(crate) fn limits(&self) -> Vec<LimitHit> {
        lock(&self.limits).clone()
    }

    /// The agent's last words.
    pub(crate) fn summary(&self) -> String {
        lock(&self.summary).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything a driver of an agent works with.
pub(crate) struct Stage<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) config: &'a RunnerConfig,
    pub(crate) run: &'a stockade_domain::Run,
    pub(crate) live: &'a Live,
    pub(crate) place: &'a Place,
    pub(crate) pulse: crate::pulse::Pulse,
}

/// Where a run's working files are.
pub(crate) fn dir_of(state_dir: &Path, run: RunId) -> PathBuf {
    state_dir.join("runs").join(run.to_string())
}

/// Makes a run's directory anew, readable by nobody else.
pub(crate) async fn fresh_dir(dir: &Path) -> Result<(), Failure> {
    remove_dir(dir).await?;
    let made = async {
        if let Some(parent) = dir.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        tokio::fs::DirBuilder::new().mode(0o700).create(dir).await
    };
    made.await
        .map_err(|e| mishap::io(&format!("making the run's directory {}", dir.display()), &e))
}

/// Removes a run's directory with everything in it.
pub(crate) async fn remove_dir(dir: &Path) -> Result<(), Failure> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(mishap::io(&format!("removing {}", dir.display()), &error))
        }
        _ => Ok(()),
    }
}
