//! Sandboxes that are made before a run asks for them.
//!
//! A warm sandbox is a whole one: namespaces, boundary, root file system, cgroups, filter, and a
//! Guest that answers. What it lacks is what only the run knows, and that is bound when the run
//! claims it: its identity, the limits' values, the workspace, the pristine git directory and the
//! installed agents ([`super::launch`], module `stage`). Nothing has ever run in it; it is
//! handed out once, measured like any other, and destroyed with its run. What the kernel allows
//! to be chosen at the start alone (the image, the limit on processes by rlimit, the devices
//! whose rates are limited) must be as the run wants it, or the run gets a sandbox of its own.

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use stockade_domain::{RunId, SandboxLimits};
use stockade_ports::sandbox::{RootFs, SandboxSpec};
use tokio::{sync::Notify, time::timeout};

use super::{
    Inner,
    handle::NativeLife,
    host::Host,
    launch::wire::Claim,
    start::{Made, evidence, milliseconds},
};
use crate::{
    cgroup::{CgroupDir, Setting},
    failure::{Failure, Step},
    live::Live,
    owner::record_run,
};

/// How often dead sandboxes are looked for when nothing else happens.
const LOOK: Duration = Duration::from_secs(5);
/// Pauses after failures: the first, and the longest of the doubled ones.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The sandboxes that wait.
pub(super) struct Pool {
    size: usize,
    ready: Mutex<Vec<Made>>,
    /// What the next ones are made for.
    kind: Mutex<(RootFs, SandboxLimits)>,
    wake: Arc<Notify>,
}

impl Pool {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size: usize::try_from(size).unwrap_or(usize::MAX),
            ready: Mutex::new(Vec::new()),
            kind: Mutex::new((RootFs::Host, SandboxLimits::default())),
            wake: Arc::new(Notify::new()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Made>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> usize {
        self.waiting().iter().filter(|made| is_alive(made)).count()
    }

    /// The spec a warm sandbox is made by.
    fn spec(&self) -> SandboxSpec {
        let (rootfs, limits) = self.kind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SandboxSpec {
            rootfs,
            limits,
            ..SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::nil()))
        }
    }

    /// Takes a sandbox that fits, for good. When none does, the next ones will.
    fn take(&self, host: &Host, spec: &SandboxSpec) -> Option<(Made, Vec<CgroupDir>)> {
        let mut ready = self.waiting();
        let fit = ready.iter().enumerate().find_map(|(at, made)| {
            let groups = fits(host, made, spec)?;
            is_alive(made).then_some((at, groups))
        });
        let taken = fit.map(|(at, groups)| (ready.remove(at), groups));
        if taken.is_none() {
            *self.kind.lock().unwrap_or_else(PoisonError::into_inner) = (spec.rootfs.clone(), spec.limits);
        }
        drop(ready);
        self.wake.notify_one();
        taken
    }

    /// Removes what is dead or of a kind nobody asks for any more; how many are then missing.
    fn trim(&self, host: &Host) -> usize {
        let spec = self.spec();
        let mut ready = self.waiting();
        ready.retain(|made| is_alive(made) && fits(host, made, &spec).is_some());
        self.size.saturating_sub(ready.len())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

fn is_alive(made: &Made) -> bool {
    made.live.life.removed.borrow().is_none()
}

/// Whether a sandbox can become one for `spec`; then its cgroups with the settings it needs.
fn fits(host: &Host, made: &Made, spec: &SandboxSpec) -> Option<Vec<CgroupDir>> {
    let name = made.orders.dir.file_name()?.to_str()?;
    let groups = host.cgroups.groups(name, &spec.limits, spec.workspace.as_deref());
    let same_files = groups.len() == made.orders.cgroups.len()
        && groups.iter().zip(&made.orders.cgroups).all(|(new, old)| {
            let files = |group: &CgroupDir| group.settings.iter().map(|s| s.file.clone()).collect::<Vec<_>>();
            new.path == old.path && files(new) == files(old)
        });
    let as_is = spec.restore.is_none()
        && spec.rootfs.label() == made.live.evidence.image
        && made.orders.pids.is_none_or(|pids| pids == spec.limits.pids);
    (same_files && as_is).then_some(groups)
}

/// Writes the values that differ.
fn limit(old: &[CgroupDir], new: &[CgroupDir]) -> Result<(), Failure> {
    for (old, new) in old.iter().zip(new) {
        let pairs = old.settings.iter().zip(&new.settings);
        let changed: Vec<_> = pairs
            .filter(|(old, new)| old.value != new.value)
            .map(|(_, new)| new)
            .collect();
        let write = |setting: &&Setting| {
            let written = fs::write(new.path.join(&setting.file), &setting.value);
            written.or_else(|e| if setting.optional { Ok(()) } else { Err(e) })
        };
        // Of two values one may bound the other: what is too early now is right later.
        let early = changed.iter().filter(|setting| write(setting).is_err()).count();
        if early > 0 {
            changed
                .iter()
                .rev()
                .try_for_each(write)
                .step("set the limits of a cgroup")?;
            changed.iter().try_for_each(write).step("set the limits of a cgroup")?;
        }
    }
    Ok(())
}

impl Inner {
    /// A warm sandbox that now belongs to the run of `spec`, if there is one that fits.
    pub(super) async fn claim(self: &Arc<Self>, spec: &SandboxSpec) -> Option<Live<NativeLife>> {
        if self.pool.size == 0 || spec.restore.is_some() {
            return None;
        }
        let begun = Instant::now();
        let host = self.host.get()?;
        let (made, groups) = self.pool.take(host, spec)?;
        match bind(host, made, &groups, spec).await {
            Ok(mut live) => {
                live.evidence.start_ms = milliseconds(begun);
                Some(live)
            }
            // The one that is made instead will fail too, and say why, or not.
            Err(failure) => {
                tracing::warn!(step = %failure.step, cause = %failure.cause, "a warm sandbox could not be claimed");
                None
            }
        }
    }
}

async fn bind(host: &Host, made: Made, groups: &[CgroupDir], spec: &SandboxSpec) -> Result<Live<NativeLife>, Failure> {
    let Made {
        mut live,
        claims,
        orders,
    } = made;
    let claim = Claim {
        workspace: spec.workspace.clone(),
        base_git: spec.base_git.clone(),
        agents: spec.agents_dir.clone(),
        disk_bytes: spec.limits.disk_bytes,
    };
    let claimed = claims.claim(&claim);
    let noted = async {
        limit(&orders.cgroups, groups)?;
        record_run(&orders.dir, &spec.run.to_string()).step("note the sandbox's run")
    };
    // It may have died in this very moment, which nobody but its Guest knows at once.
    let answers = live.client.stat("/");
    let (claimed, noted, answers) = tokio::join!(claimed, noted, answers);
    claimed.and(noted)?;
    answers.step("hear from the Guest")?;
    live.limits = spec.limits;
    live.evidence = evidence(host, spec);
    live.evidence.warm = true;
    Ok(live)
}

/// Keeps the pool filled from now on, until the backend is dropped.
pub(super) fn keep_filled(inner: &Arc<Inner>) {
    if inner.pool.size == 0 {
        return;
    }
    let backend = Arc::downgrade(inner);
    let wake = Arc::clone(&inner.pool.wake);
    tokio::spawn(async move {
        let mut pause = RETRY.0;
        loop {
            let Some(inner) = backend.upgrade() else { return };
            let Ok(host) = inner.host().await else { return };
            if inner.pool.trim(&host) == 0 {
                drop((inner, host));
                let _ = timeout(LOOK, wake.notified()).await;
                continue;
            }
            match inner.make(&inner.pool.spec(), true).await {
                Ok(made) => {
                    inner.pool.waiting().push(made);
                    pause = RETRY.0;
                }
                Err(error) => {
                    tracing::warn!(%error, "a warm sandbox could not be made");
                    drop((inner, host));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    });
}
