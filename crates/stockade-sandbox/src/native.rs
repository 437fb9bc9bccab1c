//! The backend `native`: plain Linux namespaces, as root or as an ordinary user.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nix::{
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
    },
    unistd::{Pid, Uid, geteuid, pipe2},
};
use stockade_domain::SandboxLimits;
use stockade_ports::sandbox::{
    Boundary, Reaped, Sandbox, SandboxError, SandboxEvidence, SandboxFacts, SandboxHandle, SandboxSpec,
};
use tokio::{net::unix::pipe, sync::OnceCell, time::timeout};

use crate::{
    BACKEND,
    cgroup::CgroupPlan,
    client::Client,
    etc,
    failure::{Failure, Step},
    handle::NativeHandle,
    launch::{clean, wire::LaunchSpec},
    owner::{ProcessId, Record, live_launcher},
    request::checked,
    supervise::{self, Launched},
};

/// The static Guest, built by this crate's build script.
static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.bin"));
pub(crate) const IMAGE: &str = "host";
/// How long a launcher may take to report the death of a Guest whose pipes have closed.
const DEATH_NOTICE: Duration = Duration::from_millis(500);
/// Longest the Guest may take to say hello.
const HELLO: Duration = Duration::from_secs(30);
/// Start of the names of images that are being made.
const UNFINISHED: &str = "new-";
/// Least space a sandbox can work with.
pub(crate) const MIN_DISK: u64 = 1 << 20;

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Program and arguments that run [`crate::launcher_main`], for the host binary
    /// itself and its hidden subcommand.
    pub launcher: Vec<OsString>,
    /// Directory for what sandboxes keep on the host while they live. Made with mode
    /// 0700 when it is missing; belongs to the user this process runs as.
    pub state_dir: PathBuf,
    /// Copy workspaces into the sandbox's bounded layer instead of stacking that layer
    /// over them: directories of the repository can then be renamed in one step, for
    /// the price of the copy. Kernels before 6.6 always copy.
    pub copy_workspace: bool,
}

/// Makes native sandboxes.
pub struct NativeSandbox {
    config: NativeConfig,
    host: OnceCell<Arc<Host>>,
}

/// What is found out and made once per process.
struct Host {
    owner: ProcessId,
    guest: OwnedFd,
    etc: PathBuf,
    cgroups: CgroupPlan,
    pids_by_rlimit: bool,
    serial: AtomicU64,
}

impl NativeSandbox {
    /// Makes the backend; nothing happens on the host before it is first used.
    #[must_use]
    pub fn new(config: NativeConfig) -> Self {
        Self {
            config,
            host: OnceCell::new(),
        }
    }

    async fn host(&self) -> Result<Arc<Host>, SandboxError> {
        let prepare = || async {
            let state_dir = self.config.state_dir.clone();
            let prepared = tokio::task::spawn_blocking(move || Host::prepare(&state_dir)).await;
            let prepared = prepared.step("prepare the host").and_then(|host| host);
            prepared.map(Arc::new)
        };
        let host = self.host.get_or_try_init(prepare).await;
        host.cloned().map_err(Failure::into_error)
    }

    fn sandboxes(&self) -> PathBuf {
        self.config.state_dir.join("sandboxes")
    }

    /// Makes one sandbox's directory on the host and the launcher's orders.
    fn orders(&self, host: &Host, spec: &SandboxSpec) -> Result<LaunchSpec, Failure> {
        let serial = host.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{serial}", spec.run, host.owner.pid);
        let dir = self.sandboxes().join(&name);
        let orders = LaunchSpec {
            etc: host.etc.clone(),
            workspace: spec.workspace.clone(),
            base_git: spec.base_git.clone(),
            agents: spec.agents_dir.clone(),
            copy_workspace: self.config.copy_workspace,
            cgroups: host.cgroups.groups(&name, &spec.limits),
            disk_bytes: spec.limits.disk_bytes,
            pids: host.pids_by_rlimit.then_some(spec.limits.pids),
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

    async fn start(&self, spec: SandboxSpec) -> Result<NativeHandle, SandboxError> {
        let begun = Instant::now();
        let spec = checked(spec)?;
        let host = self.host().await?;
        let orders = self.orders(&host, &spec).map_err(Failure::into_error)?;
        let unstarted = RemoveOnDrop(Some(orders.clone()));
        let (input_read, input) = pipe2(OFlag::O_CLOEXEC).map_err(setup("make pipes"))?;
        let (output, output_write) = pipe2(OFlag::O_CLOEXEC).map_err(setup("make pipes"))?;
        let pipes = [input_read, output_write];
        let launched = supervise::launch(&self.config.launcher, orders, &host.guest, pipes).await;
        let Launched {
            lifeline,
            sockets,
            ended,
        } = launched.map_err(Failure::into_error)?;
        unstarted.keep();
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
        let mut handle = NativeHandle {
            boundary: Mutex::new(boundary(sockets)),
            removed: ended,
            evidence: evidence(&host, &spec),
            client,
            lifeline,
        };
        match timeout(HELLO, hello).await {
            Ok(Ok(())) => {}
            _ => {
                handle.destroy().await?;
                let cause = handle.ended().await;
                return Err(setup("hear from the Guest")(cause));
            }
        }
        let elapsed = begun.elapsed().as_millis();
        handle.evidence.start_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        Ok(handle)
    }
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

fn mode() -> &'static str {
    if geteuid().is_root() { "root" } else { "rootless" }
}

fn evidence(host: &Host, spec: &SandboxSpec) -> SandboxEvidence {
    let SandboxLimits {
        memory_bytes,
        pids,
        cpu_millis,
        disk_bytes,
    } = &spec.limits;
    let values = [
        ("memory", memory_bytes),
        ("pids", pids),
        ("cpu", cpu_millis),
        ("disk", disk_bytes),
    ];
    let enforced = host.enforced();
    let limits = values
        .into_iter()
        .filter(|(name, _)| enforced.iter().any(|e| e == name));
    SandboxEvidence {
        backend: BACKEND.to_owned(),
        mode: mode().to_owned(),
        image: spec.image.clone(),
        limits: limits.map(|(name, value)| format!("{name}={value}")).collect(),
        start_ms: 0,
    }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    fn name(&self) -> &'static str {
        BACKEND
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        let host = self.host().await?;
        // The only honest answer to "does it work here" is one that worked.
        let trial = SandboxSpec {
            run: stockade_domain::RunId::from_uuid(uuid::Uuid::nil()),
            image: IMAGE.to_owned(),
            limits: SandboxLimits::default(),
            workspace: None,
            base_git: None,
            agents_dir: None,
        };
        let mut handle = self.start(trial).await?;
        let ipv6 = handle.take_boundary().is_some_and(|b| b.tcp6.is_some());
        handle.destroy().await?;
        let mut notes = host.notes();
        if !ipv6 {
            notes.push("this host has no IPv6: sandboxes drop it".to_owned());
        }
        if !geteuid().is_root() {
            notes.push("rootless: the sandbox keeps this user's supplementary groups for files it is given".to_owned());
        }
        Ok(SandboxFacts {
            mode: mode().to_owned(),
            enforced_limits: host.enforced(),
            notes,
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn SandboxHandle>, SandboxError> {
        Ok(Box::new(self.start(spec).await?))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        let state_dir = self.config.state_dir.clone();
        let reaped = tokio::task::spawn_blocking(move || reap(&state_dir)).await;
        let reaped = reaped.step("reap").and_then(|r| r);
        let sandboxes = reaped.map_err(Failure::into_error)?;
        Ok(Reaped { sandboxes })
    }
}

impl Host {
    fn prepare(state_dir: &Path) -> Result<Self, Failure> {
        let step = || format!("make the state directory {}", state_dir.display());
        private_directory(state_dir).step(step())?;
        private_directory(&state_dir.join("sandboxes")).step(step())?;
        private_directory(&state_dir.join("images")).step(step())?;
        let owner = ProcessId::own().step("identify this process")?;
        let etc = generated_etc(&state_dir.join("images"), &owner).step("generate the sandbox's /etc")?;
        Ok(Self {
            guest: guest_memory().step("keep the Guest in memory")?,
            cgroups: CgroupPlan::discover(),
            pids_by_rlimit: kernel_at_least(5, 14),
            serial: AtomicU64::new(0),
            owner,
            etc,
        })
    }

    fn notes(&self) -> Vec<String> {
        let enforced = self.enforced();
        let missing = ["memory", "pids", "cpu"].into_iter();
        let missing: Vec<_> = missing.filter(|m| !enforced.iter().any(|e| e == m)).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "no writable cgroup to limit {}: start stockade as root or in a delegated cgroup \
             (systemd-run --user --scope -p Delegate=yes stockade …)",
            missing.join(" and ")
        )]
    }

    fn enforced(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.cgroups.enforces("memory") {
            all.push("memory".to_owned());
        }
        if self.cgroups.enforces("pids") || self.pids_by_rlimit {
            all.push("pids".to_owned());
        }
        if self.cgroups.enforces("cpu") {
            all.push("cpu".to_owned());
        }
        all.push("disk".to_owned());
        all
    }
}

/// Tells several values of one process apart.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The generated `/etc`, shared by all sandboxes as long as the host's does not change.
fn generated_etc(images: &Path, owner: &ProcessId) -> io::Result<PathBuf> {
    let plan = etc::Plan::make(Path::new("/etc"))?;
    let image = images.join(plan.fingerprint());
    let etc = image.join("etc");
    if !etc.is_dir() {
        let unfinished = images.join(format!("{UNFINISHED}{}-{}", owner.pid, unique()));
        plan.write(&unfinished.join("etc"))?;
        // Whole or not at all. Somebody else may have been faster, with the same result.
        if let Err(e) = fs::rename(&unfinished, &image) {
            let _ = fs::remove_dir_all(&unfinished);
            if !etc.is_dir() {
                return Err(e);
            }
        }
    }
    Ok(etc)
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(path)?);
    if Uid::from_raw(owner) != geteuid() {
        return Err(io::Error::other(format!(
            "it belongs to uid {owner}, not to this process's user"
        )));
    }
    Ok(())
}

/// The Guest as a sealed file without a name: one copy for all sandboxes, which nobody can change.
fn guest_memory() -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = MFdFlags::from_bits_retain(flags.bits() | MFD_EXEC);
    // Kernels before 6.3 do not know the flag and need none.
    let fd = memfd_create(c"stockade-guest", executable).or_else(|_| memfd_create(c"stockade-guest", flags))?;
    let mut file = File::from(fd);
    file.write_all(GUEST)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Removes what sandboxes of dead processes left below the state directory.
fn reap(state_dir: &Path) -> Result<u32, Failure> {
    let mut count = 0;
    let mut live = 0;
    for dir in subdirectories(&state_dir.join("sandboxes"))? {
        let record = Record::read(&dir);
        if record.as_ref().is_ok_and(|r| r.owner.is_alive()) {
            live += 1;
            continue;
        }
        // Its own launcher is probably at it already; a hung one is ended. What it
        // holds dies with it.
        if let Some(launcher) = live_launcher(&dir) {
            let _ = kill(Pid::from_raw(launcher.pid), Signal::SIGKILL);
        }
        let leftovers = LaunchSpec {
            etc: PathBuf::new(),
            workspace: None,
            base_git: None,
            agents: None,
            copy_workspace: false,
            cgroups: record.map(|r| r.cgroups).unwrap_or_default(),
            disk_bytes: 0,
            pids: None,
            dir,
        };
        clean(&leftovers)?;
        count += 1;
    }
    if live == 0 {
        remove_old_images(&state_dir.join("images"))?;
    }
    Ok(count)
}

/// Removes generated directories no new sandbox would use. Only called when there is no
/// live sandbox that could still use one.
fn remove_old_images(images: &Path) -> Result<(), Failure> {
    let plan = etc::Plan::make(Path::new("/etc")).step("read the host's /etc")?;
    let current = plan.fingerprint();
    for dir in subdirectories(images)? {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let maker = name.strip_prefix(UNFINISHED).and_then(|rest| {
            let pid = rest.split('-').next()?.parse().ok()?;
            ProcessId::of(pid).ok()
        });
        if name != current && maker.is_none() {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.step(format!("look into {}", dir.display()))?,
    };
    let dirs = entries.flatten().map(|entry| entry.path());
    Ok(dirs.filter(|path| path.is_dir()).collect())
}
