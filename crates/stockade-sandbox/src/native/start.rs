//! Making one sandbox: its directory and orders, its launcher, its Guest's first word.

use std::{
    fs,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use stockade_domain::SandboxLimits;
use stockade_ports::sandbox::{Boundary, RootFs, SandboxError, SandboxEvidence, SandboxSpec};
use tokio::{net::unix::pipe, time::timeout};

use super::{
    Inner,
    handle::NativeLife,
    host::{Host, private_directory},
    launch::wire::LaunchSpec,
    mode, snapshot,
    supervise::{self, Claims},
};
use crate::{
    BACKEND,
    client::Client,
    failure::{Failure, Step},
    live::Live,
    owner::{Record, live_launcher},
};

/// How long a launcher may take to report the death of a Guest whose pipes have closed.
const DEATH_NOTICE: Duration = Duration::from_millis(500);
/// Longest the Guest may take to say hello.
const HELLO: Duration = Duration::from_secs(30);

/// A sandbox whose Guest answers.
pub(super) struct Made {
    pub(super) live: Live<NativeLife>,
    /// How a run takes it over, if it was made for nobody.
    pub(super) claims: Claims,
    pub(super) orders: LaunchSpec,
}

impl Inner {
    /// Makes one sandbox's directory on the host and the launcher's orders.
    fn orders(&self, host: &Host, spec: &SandboxSpec, warm: bool) -> Result<LaunchSpec, Failure> {
        let serial = host.serial.fetch_add(1, Ordering::Relaxed);
        let whose = if warm { "warm".to_owned() } else { spec.run.to_string() };
        let name = format!("{whose}-{}-{serial}", host.owner.pid);
        let dir = self.config.state_dir.join("sandboxes").join(&name);
        let orders = LaunchSpec {
            layers: match &spec.rootfs {
                RootFs::Host => Vec::new(),
                RootFs::Image(tree) => tree.layers.clone(),
            },
            etc: host.etc.clone(),
            workspace: spec.workspace.clone(),
            base_git: spec.base_git.clone(),
            agents: spec.agents_dir.clone(),
            copy_workspace: self.config.copy_workspace,
            cgroups: host.cgroups.groups(&name, &spec.limits, spec.workspace.as_deref()),
            disk_bytes: spec.limits.disk_bytes,
            pids: host.pids_by_rlimit.then_some(spec.limits.pids),
            restore: None,
            warm,
            dir,
        };
        let step = "make the sandbox's directory";
        private_directory(&orders.dir).step(step)?;
        let record = Record {
            owner: host.owner.clone(),
            cgroups: orders.cgroups.clone(),
        };
        record.write(&orders.dir).step(step)?;
        Ok(orders)
    }

    /// Makes a sandbox, from nothing. A warm one lacks what comes from its run.
    pub(super) async fn make(self: &Arc<Self>, spec: &SandboxSpec, warm: bool) -> Result<Made, SandboxError> {
        let begun = Instant::now();
        let restore = spec.restore.as_deref().map(snapshot::checked).transpose()?;
        let host = self.host().await?;
        let mut orders = self.orders(&host, spec, warm).map_err(Failure::into_error)?;
        orders.restore = restore;
        let unstarted = RemoveOnDrop(Some(orders.clone()));
        let (input_read, input) = pipe2(OFlag::O_CLOEXEC).map_err(setup("make pipes"))?;
        let (output, output_write) = pipe2(OFlag::O_CLOEXEC).map_err(setup("make pipes"))?;
        let pipes = [input_read, output_write];
        let launched = supervise::launch(&self.nursery, &orders, &host.guest, pipes).await;
        let mut launched = launched.map_err(Failure::into_error)?;
        unstarted.keep();
        let claims = launched.claims();
        let (lifeline, ended, inside) = (launched.lifeline, launched.ended, launched.inside);
        let input = pipe::Sender::from_owned_fd(input).map_err(setup("make pipes"))?;
        let output = pipe::Receiver::from_owned_fd(output).map_err(setup("make pipes"))?;
        let (at_end, mut removed) = (lifeline.clone(), ended.clone());
        let (client, hello) = Client::start(input, output, move |fault| async move {
            // A Guest that died closes its pipes a moment before the launcher hears of it. The
            // launcher knows why it died; cutting at once would make it our doing.
            if fault.is_none() {
                let _ = timeout(DEATH_NOTICE, removed.wait_for(Option::is_some)).await;
            }
            at_end.cut();
            let ended = removed.wait_for(Option::is_some).await;
            let ended = ended.ok().and_then(|reason| reason.clone());
            fault.or(ended).unwrap_or_else(|| "unknown".to_owned())
        });
        let mut live = Live {
            boundary: boundary(launched.sockets),
            evidence: evidence(&host, spec),
            client: match &spec.rootfs {
                RootFs::Host => client,
                RootFs::Image(tree) => client.with_environment(&tree.env),
            },
            limits: spec.limits,
            enforced: host.enforced(),
            life: Arc::new(NativeLife {
                lifeline,
                removed: ended,
                cgroups: orders.cgroups.clone(),
                _rootfs: spec.rootfs.clone(),
                inside,
                nursery: Arc::clone(&self.nursery),
            }),
        };
        match timeout(HELLO, hello).await {
            Ok(Ok(())) => {}
            _ => {
                live.end().await;
                let cause = live.reason().await;
                return Err(setup("hear from the Guest")(cause));
            }
        }
        live.evidence.start_ms = milliseconds(begun);
        Ok(Made { live, claims, orders })
    }
}

/// Since then.
pub(super) fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn setup<E: ToString>(step: &'static str) -> impl Fn(E) -> SandboxError {
    move |e| SandboxError::Setup {
        step: step.to_owned(),
        cause: e.to_string(),
    }
}

/// Removes a sandbox's directory when no launcher took it over.
struct RemoveOnDrop(Option<LaunchSpec>);

impl RemoveOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(orders) = self.0.take()
            && live_launcher(&orders.dir).is_none()
        {
            let _ = fs::remove_dir_all(&orders.dir);
        }
    }
}

fn boundary(sockets: Vec<OwnedFd>) -> Option<Boundary> {
    let mut sockets = sockets.into_iter();
    Some(Boundary {
        tcp4: sockets.next()?,
        dns4: sockets.next()?,
        tcp6: sockets.next(),
        dns6: sockets.next(),
    })
}

/// What the sandbox of a spec really gets.
pub(super) fn evidence(host: &Host, spec: &SandboxSpec) -> SandboxEvidence {
    let SandboxLimits {
        memory_bytes,
        pids,
        cpu_millis,
        disk_bytes,
        io_bytes_per_second,
    } = spec.limits;
    let values = [
        ("memory", Some(memory_bytes)),
        ("pids", Some(pids)),
        ("cpu", Some(cpu_millis)),
        ("io", io_bytes_per_second),
        ("disk", Some(disk_bytes)),
    ];
    let enforced = host.enforced();
    let limits = values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .filter(|(name, _)| enforced.iter().any(|e| e == name));
    SandboxEvidence {
        backend: BACKEND.to_owned(),
        mode: mode().to_owned(),
        image: spec.rootfs.label().to_owned(),
        limits: limits.map(|(name, value)| format!("{name}={value}")).collect(),
        start_ms: 0,
        warm: false,
    }
}
