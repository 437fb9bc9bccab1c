//! Looks into a push on the host, before a byte of it goes on.
//!
//! The pack is indexed into a git directory made for it alone, which borrows the objects of the
//! run's pristine base and of earlier pushes: with the hardened git of this crate, without hooks,
//! configuration, references or replacements, bounded in memory and time, and with every object
//! checked as a server with `transfer.fsckObjects` would (git-index-pack(1) `--strict`).
//!
//! Every commit that the server does not have is looked into, not only what the last of them
//! looks like: a file that one commit brings and the next removes has left all the same. A merge
//! counts where it differs from all its parents.

mod look;
mod room;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use stockade_domain::Failure;
use stockade_ports::{Inspected, PushInspector, PushToInspect, Quarantine};

use crate::RunnerConfig;

use room::Room;

/// Bytes of one run's pushes from which on no more are kept: the host's disk is not the agent's.
const MOST_KEPT: u64 = 1 << 30;

/// Looks into the pushes of one run.
#[derive(Debug)]
pub struct PushInspection {
    config: RunnerConfig,
    base_git: PathBuf,
    dir: PathBuf,
    next: AtomicU64,
}

impl PushInspection {
    /// `base_git` is the run's pristine copy; `dir` is a directory of its own, made when needed,
    /// that goes with the run.
    pub fn new(config: RunnerConfig, base_git: PathBuf, dir: PathBuf) -> Self {
        Self {
            config,
            base_git,
            dir,
            next: AtomicU64::new(0),
        }
    }

    /// Where the objects of pushes that went through are kept.
    fn kept(&self) -> PathBuf {
        self.dir.join("kept.git")
    }
}

#[async_trait]
impl PushInspector for PushInspection {
    async fn inspect(&self, push: PushToInspect) -> Result<Inspected, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let quarantine = Quarantine::new(self.dir.join(format!("push-{number}.git")));
        let room = Room {
            config: &self.config,
            base_git: &self.base_git,
            kept: self.kept(),
            git_dir: quarantine.dir(),
        };
        room.open(&push).await?;
        let facts = look::look(&room, &push).await?;
        Ok(Inspected { facts, quarantine })
    }

    async fn delivered(&self, push: Inspected) {
        // Without these objects a later push of the same branch counts as rewritten: strict, not wrong.
        if room::kept_bytes(&self.kept()).await >= MOST_KEPT {
            return;
        }
        if let Err(failure) = room::keep(&self.config, push.quarantine.dir(), &self.kept()).await {
            tracing::warn!(%failure, "the objects of a push could not be kept");
        }
    }
}
