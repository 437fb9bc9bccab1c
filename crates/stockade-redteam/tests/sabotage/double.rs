//! Sandboxes that lack something, for tests of the red team. `bwrap` makes what is there of them.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use stockade_domain::{Environment, NetworkLevel, Run, RunSpec};
use stockade_ports::{
    Boundary, Capabilities, Collected, Egress, EgressError, EgressSession, ExecRequest, Exit, FreshSandbox, ImageError,
    ImageTree, Images, Lease, Measurement, Output, ProbePlan, Process, PullProgress, Reaped, Sandbox, SandboxError,
    SandboxEvidence, SandboxFacts, SandboxHandle, SandboxSpec, Snapshot, Store, Tally,
    sandbox::{Check, Control, Download, Entry, Kernel, Listing, MEASURED_INSIDE, Proof, Upload, Watched},
    sim::{MemoryStore, samples},
};
use stockade_redteam::{Canaries, twin};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::mpsc,
    time::timeout,
};

/// What a double lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It starts commands on the host.
    Everything,
    /// It has namespaces and no capabilities, and no filter, limits or Guard.
    Filter,
    /// The same with the host's network.
    Boundary,
    /// The same again, with a Guard that looks up every name and forwards everything.
    Judgement,
}

/// Makes sandboxes that lack something, and says they lack nothing.
pub(crate) struct Double {
    missing: Missing,
    dir: PathBuf,
    /// What the attacker's ferry is told where the Guard forwards everything.
    road: [String; 2],
    made: Arc<Made>,
}

/// What it made; a sandbox that is let go of stays until the whole test is over.
#[derive(Default)]
struct Made {
    dirs: Mutex<Vec<PathBuf>>,
    groups: Mutex<Vec<u32>>,
}

impl Double {
    pub(crate) fn sandbox(missing: Missing, dir: &Path, canaries: &Canaries) -> Arc<dyn Sandbox> {
        Arc::new(Self {
            missing,
            dir: dir.to_owned(),
            road: [
                format!("through={}", canaries.road()),
                format!("resolver={}", canaries.nameserver()),
            ],
            made: Arc::default(),
        })
    }
}

/// A throwaway store and what its runs are frozen with.
pub(crate) fn run(canaries: &Canaries) -> (Arc<dyn Store>, RunSpec) {
    let mut spec = samples::spec(samples::limits());
    spec.environment = Environment::named("default", NetworkLevel::Trusted);
    assert!(twin(&mut spec.environment, canaries));
    (Arc::new(MemoryStore::default()), spec)
}

#[async_trait]
impl Sandbox for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kernel: Kernel::Shared,
            rootless: true,
            isolates: false,
            images: false,
            pause: false,
            snapshot: false,
            warm_pool: false,
            limits: &["memory", "cpu", "pids", "disk"],
        }
    }

    async fn check(&self) -> Result<SandboxFacts, SandboxError> {
        Ok(SandboxFacts {
            mode: "double".to_owned(),
            // A lie the red team has to find out.
            enforced_limits: ["memory", "cpu", "pids", "disk"].map(str::to_owned).to_vec(),
            ..SandboxFacts::default()
        })
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn FreshSandbox>, SandboxError> {
        let name = format!("double-{}", spec.run);
        let dir = self.dir.join(name);
        fs::create_dir(&dir).expect("a directory");
        self.made.dirs.lock().expect("unpoisoned").push(dir.clone());
        let work = dir.join("workspace");
        let from = spec.workspace.clone().expect("a workspace");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(&from)
            .arg(&work)
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
        Ok(Box::new(Fresh(Arc::new(Inside {
            missing: self.missing,
            dir,
            agents: spec.agents_dir.expect("agents"),
            base: spec.base_git.expect("a base"),
            road: self.road.clone(),
            made: Arc::clone(&self.made),
        }))))
    }

    async fn reap(&self) -> Result<Reaped, SandboxError> {
        Ok(Reaped::default())
    }
}

struct Fresh(Arc<Inside>);

struct Inside {
    missing: Missing,
    dir: PathBuf,
    agents: PathBuf,
    base: PathBuf,
    road: [String; 2],
    made: Arc<Made>,
}

#[async_trait]
impl FreshSandbox for Fresh {
    fn take_boundary(&mut self) -> Option<Boundary> {
        // Sockets nobody inside is led to.
        let tcp4 = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
        let dns4 = std::net::UdpSocket::bind("127.0.0.1:0").ok()?;
        Some(Boundary {
            tcp4: tcp4.into(),
            tcp6: None,
            dns4: dns4.into(),
            dns6: None,
        })
    }

    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence::default()
    }

    async fn measure(&self, _: &ProbePlan) -> Result<Measurement, SandboxError> {
        let check = |name| Check {
            name,
            expected: "claimed".to_owned(),
            seen: "claimed".to_owned(),
            ok: true,
        };
        Ok(Measurement {
            checks: MEASURED_INSIDE.into_iter().map(check).collect(),
            micros: 1,
        })
    }

    fn release(self: Box<Self>, _: Proof) -> Arc<dyn SandboxHandle> {
        Arc::new(Handle(self.0))
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        Ok(())
    }
}

struct Handle(Arc<Inside>);

impl Drop for Double {
    fn drop(&mut self) {
        for group in self.made.groups.lock().expect("unpoisoned").iter() {
            let group = format!("-{group}");
            let mut kill = std::process::Command::new("kill");
            let _ = kill.args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        }
        for dir in self.made.dirs.lock().expect("unpoisoned").iter() {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

impl Inside {
    fn command(&self, request: &ExecRequest) -> Command {
        let work = self.dir.join("workspace");
        let (program, args) = request.argv.split_first().expect("a program");
        if self.missing == Missing::Everything {
            let own = self.agents.display().to_string();
            let here = |text: &str| text.replace("/opt/agents", &own);
            let mut command = Command::new(here(program));
            command
                .args(args.iter().map(|arg| here(arg)))
                .current_dir(request.cwd.as_deref().map_or(work, PathBuf::from));
            return command;
        }
        let mut command = Command::new("bwrap");
        command.args([
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup",
        ]);
        if self.missing == Missing::Filter {
            command.arg("--unshare-net");
        }
        command.args([
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--cap-drop",
            "ALL",
            "--ro-bind",
            "/usr",
            "/usr",
        ]);
        for link in ["bin", "lib", "lib64", "sbin"] {
            command.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
        }
        command.args([
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--tmpfs",
            "/var/tmp",
            "--tmpfs",
            "/home/agent",
        ]);
        command.arg("--bind").arg(work).arg("/workspace");
        command.arg("--ro-bind").arg(&self.agents).arg("/opt/agents");
        command.arg("--ro-bind").arg(&self.base).arg("/run/stockade/base.git");
        command.args(["--chdir", request.cwd.as_deref().unwrap_or("/workspace")]);
        command.args(&request.argv);
        if self.missing == Missing::Judgement && request.argv.get(1).is_some_and(|attack| attack == "ferry") {
            command.args(&self.road);
        }
        command
    }
}

#[async_trait]
impl SandboxHandle for Handle {
    fn evidence(&self) -> SandboxEvidence {
        SandboxEvidence::default()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        let mut command = self.0.command(&request);
        command
            .process_group(0)
            .kill_on_drop(request.stdin)
            .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| SandboxError::Inside {
            operation: "exec".to_owned(),
            cause: format!("{error} (these tests need bubblewrap: apt-get install bubblewrap)"),
        })?;
        self.0.made.groups.lock().expect("unpoisoned").extend(child.id());
        let (sender, output) = mpsc::channel(16);
        let (stdin, mut words) = mpsc::channel::<Bytes>(16);
        if let Some(mut input) = child.stdin.take() {
            tokio::spawn(async move {
                while let Some(bytes) = words.recv().await {
                    if input.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
        let (control, _) = Control::channel();
        tokio::spawn(async move {
            let mut stdout = child.stdout.take().expect("piped");
            let pump = async {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length) = stdout.read(&mut buffer).await {
                    let bytes = Bytes::copy_from_slice(&buffer[..length]);
                    if length == 0 || sender.send(Output::Stdout(bytes)).await.is_err() {
                        break;
                    }
                }
            };
            let patience = request.timeout.unwrap_or(Duration::from_secs(20));
            let _ = timeout(patience, pump).await;
            // Nobody is ended for taking too long: that is one of the things this lacks.
            let code = timeout(Duration::from_millis(200), child.wait()).await;
            let code = code
                .ok()
                .and_then(Result::ok)
                .and_then(|status| status.code())
                .unwrap_or(-1);
            let _ = sender.send(Output::Exited(Exit::Code(code))).await;
        });
        Ok(Process { stdin, output, control })
    }

    async fn read_file(&self, path: &str, _: u64) -> Result<Bytes, SandboxError> {
        fs::read(self.place(path))
            .map(Bytes::from)
            .map_err(|error| SandboxError::NotFound(error.to_string()))
    }

    async fn write_file(&self, path: &str, content: Bytes, _: u32) -> Result<(), SandboxError> {
        fs::write(self.place(path), content).map_err(|error| SandboxError::NotFound(error.to_string()))
    }

    async fn download(&self, _: &str, _: u64) -> Result<Download, SandboxError> {
        Err(incapable())
    }

    async fn upload(&self, _: &str, _: u32, _: u64) -> Result<Upload, SandboxError> {
        Err(incapable())
    }

    async fn stat(&self, _: &str) -> Result<Entry, SandboxError> {
        Err(incapable())
    }

    async fn list(&self, _: &str, _: u32, _: u32) -> Result<Listing, SandboxError> {
        Err(incapable())
    }

    async fn make_dir(&self, _: &str, _: u32) -> Result<(), SandboxError> {
        Err(incapable())
    }

    async fn remove(&self, _: &str, _: bool) -> Result<(), SandboxError> {
        Err(incapable())
    }

    async fn rename(&self, _: &str, _: &str) -> Result<(), SandboxError> {
        Err(incapable())
    }

    async fn watch(&self, _: &str, _: bool) -> Result<Watched, SandboxError> {
        Err(incapable())
    }

    async fn pause(&self) -> Result<(), SandboxError> {
        Err(incapable())
    }

    async fn resume(&self) -> Result<(), SandboxError> {
        Err(incapable())
    }

    async fn snapshot(&self, _: &Path) -> Result<Snapshot, SandboxError> {
        Err(incapable())
    }

    async fn stop(&self, _: Duration) -> Result<(), SandboxError> {
        Ok(())
    }

    /// Leaves everything: that is another of the things this lacks.
    async fn destroy(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn ended(&self) -> String {
        std::future::pending().await
    }
}

impl Handle {
    fn place(&self, path: &str) -> PathBuf {
        match path.strip_prefix("/workspace/") {
            Some(rest) => self.0.dir.join("workspace").join(rest),
            None => PathBuf::from(path),
        }
    }
}

fn incapable() -> SandboxError {
    SandboxError::Incapable {
        backend: "double",
        what: "do that",
    }
}

/// A Guard that claims to have denied what was asked of it, and is asked nothing.
pub(crate) fn egress() -> Arc<dyn Egress> {
    Arc::new(Claims)
}

struct Claims;

#[async_trait]
impl Egress for Claims {
    async fn guard(&self, _: &Run, _: Lease, _: Boundary) -> Result<Box<dyn EgressSession>, EgressError> {
        Ok(Box::new(Claims))
    }
}

#[async_trait]
impl EgressSession for Claims {
    fn tally(&self) -> Tally {
        let plan = ProbePlan::standard(None);
        let mut denied = vec![
            Ipv4Addr::new(192, 0, 2, 1).to_string(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_string(),
        ];
        denied.push(plan.denied_name);
        Tally {
            denied,
            allowed: Vec::new(),
        }
    }

    fn open(&self) {}

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

/// An image store that has nothing.
pub(crate) fn images() -> Arc<dyn Images> {
    Arc::new(Empty)
}

struct Empty;

#[async_trait]
impl Images for Empty {
    fn check(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn prepare(&self, _: &str, _: &dyn PullProgress) -> Result<Arc<ImageTree>, ImageError> {
        Err(ImageError::Store("it is empty".to_owned()))
    }

    async fn collect(&self) -> Result<Collected, ImageError> {
        Ok(Collected::default())
    }
}
