//! The backends `runc`, `crun` and `runsc`: sandboxes made by an OCI runtime's command line.
//!
//! ```text
//! host process ── thread with fresh network and mount namespaces ── runtime ── Guest (pid 1)
//!      ▲               boundary prepared, tree mounted                            ▲
//!      └──────────────────────── frames over two pipes ──────────────────────────┘
//! ```
//!
//! The namespaces are made by one thread of the host process, which ends when the runtime
//! runs in them. Nothing is mounted where the host could see it and no namespace is bound to
//! a file, so both are gone with the last process, whoever died first. What is left for the
//! reaper is a directory and cgroups. The runtime keeps its own state in that directory.
//!
//! gVisor (`runsc`) runs the Guest on a kernel of its own. It is told to use the host's
//! network stack, which in that namespace is the boundary and nothing else.

mod groups;
mod gvisor;
mod life;
mod place;
mod runtime;
mod spec;
mod trial;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nix::unistd::geteuid;
use stockade_domain::RunId;
use stockade_ports::sandbox::{
    Capabilities, FreshSandbox, Kernel, Reaped, RootFs, Sandbox, SandboxError, SandboxEvidence, SandboxFacts,
    SandboxSpec,
};
use tokio::{sync::OnceCell, time::timeout};

pub use self::runtime::Runtime;
use self::{
    groups::Groups,
    life::{OciLife, Remains},
    place::{Order, Placed},
};
use crate::{
    cgroup::CgroupPlan,
    client::Client,
    failure::{Failure, Step},
    filter,
    live::Live,
    native::{launch::userns::Slot, private_directory, reap},
    owner::{ProcessId, Record},
    request::checked,
    tree::{HostFiles, Root, TreePlan},
};

/// How long the end of a runtime may take to be noticed after the Guest's pipes have closed.
const DEATH_NOTICE: Duration = Duration::from_secs(2);
/// Longest a runtime and the Guest in it may take until the Guest says hello.
const HELLO: Duration = Duration::from_secs(60);

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct OciConfig {
    /// Which runtime it is.
    pub runtime: Runtime,
    /// Its program: a path, or a name to be found on the usual path.
    pub program: PathBuf,
    /// Directory for what sandboxes keep on the host while they live. Made with mode 0700
    /// when it is missing. May be the native backend's.
    pub state_dir: PathBuf,
}

/// Makes sandboxes with an OCI runtime. Needs root.
pub struct OciSandbox {
    config: OciConfig,
    host: OnceCell<Arc<Host>>,
}

/// What is found out and made once per process.
struct Host {
    owner: ProcessId,
    files: HostFiles,
    cgroups: CgroupPlan,
    program: PathBuf,
    version: String,
    /// System call filters in the Guest's form.
    filters: Vec<Vec<u64>>,
    serial: AtomicU64,
}

impl OciSandbox {
    /// Makes the backend; nothing happens on the host before it is first used.
    #[must_use]
    pub fn new(config: OciConfig) -> Self {
        Self {
            config,
            host: OnceCell::new(),
        }
    }

    async fn host(&self) -> Result<Arc<Host>, SandboxError> {
        let prepare = || async {
            let config = self.config.clone();
            let prepared = tokio::task::spawn_blocking(move || Host::prepare(&config)).await;
            let prepared = prepared.step("prepare the host").and_then(|host| host);
            prepared.map(Arc::new).map_err(|failure| self.error(failure))
        };
        self.host.get_or_try_init(prepare).await.cloned()
    }

    fn error(&self, failure: Failure) -> SandboxError {
        failure.into_error_of(self.name())
    }

    /// Plans one sandbox and makes its directory.
    fn order(&self, host: &Host, spec: &SandboxSpec) -> Result<Order, Failure> {
        let runtime = self.config.runtime;
        let serial = host.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{serial}", spec.run, host.owner.pid);
        let dir = host.files.sandboxes.join(&name);
        let groups = Groups::plan(runtime, &host.cgroups, &name, &spec.limits, spec.workspace.as_deref());
        let slot = runtime.maps_users().then(Slot::reserve).transpose()?;
        let tree = TreePlan {
            base: place::base(&[&self.config.state_dir, &host.program])?,
            root: match &spec.rootfs {
                RootFs::Host => Root::Host(host.files.etc.clone()),
                RootFs::Image(image) => Root::Layers(image.layers.clone()),
            },
            guest: host.files.guest.clone(),
            workspace: spec.workspace.clone(),
            base_git: spec.base_git.clone(),
            agents: spec.agents_dir.clone(),
            disk_bytes: spec.limits.disk_bytes,
            // gVisor has users of its own; outside there is only what it stores.
            owner: slot.as_ref().map_or(crate::INSIDE_ID, |slot| slot.uid),
            scratch: dir.clone(),
        };
        let step = "make the sandbox's directory";
        private_directory(&dir).step(step)?;
        let order = Order {
            runtime,
            program: host.program.clone(),
            limits: spec.limits,
            tree,
            remains: Remains::new(name, dir, groups, slot, spec.rootfs.clone()),
        };
        let record = Record {
            owner: host.owner.clone(),
            cgroups: order.remains.groups().all().to_vec(),
        };
        record.write(order.remains.dir()).step(step)?;
        Ok(order)
    }

    async fn start(&self, spec: SandboxSpec) -> Result<Live<OciLife>, SandboxError> {
        let begun = Instant::now();
        if spec.restore.is_some() {
            return Err(SandboxError::Incapable {
                backend: self.name(),
                what: "restore snapshots",
            });
        }
        let spec = checked(spec)?;
        let host = self.host().await?;
        let order = self.order(&host, &spec).map_err(|f| self.error(f))?;
        let Placed {
            boundary,
            input,
            output,
            life,
        } = place::start(order).await.map_err(|f| self.error(f))?;
        let at_end = life.clone();
        let (client, hello) = Client::start(input, output, move |fault| async move {
            // A Guest that died closes its pipes a moment before its runtime is seen to end, and
            // the runtime knows why it died; cutting at once would make it our doing.
            let told = match fault {
                None => timeout(DEATH_NOTICE, at_end.ended()).await.ok(),
                Some(_) => None,
            };
            at_end.cut_off();
            let ended = match told {
                Some(ended) => ended,
                None => at_end.ended().await,
            };
            fault.unwrap_or(ended)
        });
        let client = match &spec.rootfs {
            RootFs::Image(image) => client.with_environment(&image.env),
            RootFs::Host => client,
        };
        let mut live = Live {
            client,
            boundary: Some(boundary),
            evidence: self.evidence(&host, &spec),
            limits: spec.limits,
            enforced: host.enforced(),
            life: Arc::new(life),
        };
        let heard = timeout(HELLO, hello).await.is_ok_and(|hello| hello.is_ok());
        if let Err(error) = self.settle(&host, &live, heard).await {
            live.end().await;
            return Err(error);
        }
        let elapsed = begun.elapsed().as_millis();
        live.evidence.start_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        Ok(live)
    }

    /// What is left to do once the Guest answers: limit it, and have it confine itself.
    async fn settle(&self, host: &Host, live: &Live<OciLife>, heard: bool) -> Result<(), SandboxError> {
        if !heard {
            live.end().await;
            return Err(SandboxError::Setup {
                step: format!("start the Guest with {}", self.name()),
                cause: live.reason().await,
            });
        }
        let life = live.life.clone();
        let limited = tokio::task::spawn_blocking(move || life.limit()).await;
        let limited = limited.step("limit the sandbox").and_then(|limited| limited);
        limited.map_err(|failure| self.error(failure))?;
        live.client.confine(host.filters.clone()).await
    }

    fn evidence(&self, host: &Host, spec: &SandboxSpec) -> SandboxEvidence {
        let limits = &spec.limits;
        let values = [
            ("memory", Some(limits.memory_bytes)),
            ("pids", Some(limits.pids)),
            ("cpu", Some(limits.cpu_millis)),
            ("io", limits.io_bytes_per_second),
            ("disk", Some(limits.disk_bytes)),
        ];
        let enforced = host.enforced();
        let asked = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let limits = asked.filter(|(name, _)| enforced.iter().any(|e| e == name));
        SandboxEvidence {
            backend: self.name().to_owned(),
            mode: "root".to_owned(),
            image: spec.rootfs.label().to_owned(),
            limits: limits.map(|(name, value)| format!("{name}={value}")).collect(),
            start_ms: 0,
            warm: false,
        }
    }
}

#[async_trait]
impl Sandbox for OciSandbox {
    fn name(&self) -> &'static str {
        self.config.runtime.name()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kernel: match self.config.runtime {
                Runtime::Runc | Runtime::Crun => Kernel::Shared,
                Runtime::Runsc => Kernel::Own,
            },
            rootless: false,
            isolates: true,
            images: true,
            pause: true,
            snapshot: false,
            warm_pool: false,
            limits: &["memory", "cpu", "pids", "io", "disk"],
        }
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        let host = self.host().await?;
        // The only honest answer to "does it work here" is one that worked.
        let trial = SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::nil()));
        let mut live = self.start(trial).await?;
        let ipv6 = live.boundary.take().is_some_and(|boundary| boundary.tcp6.is_some());
        let mut notes = vec![format!("{} is {}", self.name(), host.version)];
        notes.extend(host.notes());
        if self.capabilities().kernel == Kernel::Own {
            notes.extend(trial::missing(&live.client).await);
        }
        live.end().await;
        if !ipv6 {
            notes.push("this host has no IPv6: sandboxes drop it".to_owned());
        }
        Ok(SandboxFacts {
            mode: "root".to_owned(),
            enforced_limits: host.enforced(),
            defences: self.config.runtime.defences(),
            notes,
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError> {
        Ok(Box::new(self.start(spec).await?))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        let state_dir = self.config.state_dir.clone();
        let reaped = tokio::task::spawn_blocking(move || reap_below(&state_dir)).await;
        let reaped = reaped.step("reap").and_then(|reaped| reaped);
        let sandboxes = reaped.map_err(|failure| self.error(failure))?;
        Ok(Reaped { sandboxes })
    }
}

/// The record of a sandbox names its cgroups; with the processes in them gone, a directory is
/// all there is, as for the native backend.
fn reap_below(state_dir: &Path) -> Result<u32, Failure> {
    let reaped = reap(state_dir)?;
    HostFiles::remove_old(state_dir)?;
    Ok(reaped)
}

impl Host {
    fn prepare(config: &OciConfig) -> Result<Self, Failure> {
        let runtime = config.runtime;
        if !geteuid().is_root() {
            return Err(
                Failure::new(format!("use {}", runtime.name()), "this process is not root")
                    .with_fix("start stockade as root, or use the native backend, which needs no root"),
            );
        }
        let mut filters = filter::words(&filter::compile()?);
        if runtime == Runtime::Runsc {
            filters.push(gvisor::untouchable_guest());
        }
        let program = runtime.find(&config.program)?;
        let version = runtime.version(&program)?;
        let owner = ProcessId::own().step("identify this process")?;
        Ok(Self {
            files: HostFiles::prepare(&config.state_dir, &owner)?,
            cgroups: CgroupPlan::discover(),
            serial: AtomicU64::new(0),
            owner,
            program,
            version,
            filters,
        })
    }

    fn enforced(&self) -> Vec<String> {
        let cgroups = ["memory", "pids", "cpu", "io"]
            .into_iter()
            .filter(|c| self.cgroups.enforces(c));
        cgroups.chain(["disk"]).map(str::to_owned).collect()
    }

    fn notes(&self) -> Vec<String> {
        let missing: Vec<_> = ["memory", "pids", "cpu"]
            .into_iter()
            .filter(|c| !self.cgroups.enforces(c))
            .collect();
        if missing.is_empty() {
            return Vec::new();
        }
        vec![format!("no writable cgroup to limit {}", missing.join(" and "))]
    }
}
