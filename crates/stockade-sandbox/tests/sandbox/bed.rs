//! The test bed: one process per case, with its own state directory and, rootless, its own user.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use stockade_domain::{RunId, SandboxLimits};
use stockade_ports::{
    sandbox::{
        Boundary, ExecRequest, Exit, FreshSandbox, Output, ProbePlan, Process, Sandbox, SandboxError, SandboxHandle,
        SandboxSpec, prove,
    },
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, original_destination};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_stockade-sandbox-launcher");
const PROBE: &str = env!("CARGO_BIN_EXE_stockade-sandbox-probe");
const CHILD: &str = "STOCKADE_TEST_CHILD";
/// In the environment and in files of the host process; must never be found inside.
pub(crate) const CANARY: &str = "canary-4cf7b1f0a9d2";
/// Marks an unprivileged user of this test run; nobody else has these ids.
const FIRST_UID: u32 = 210_000;

/// Runs a case: in the parent starts the process for it and judges what it left, in that
/// process runs `body`.
pub(crate) fn case<F, R>(mode: Mode, path: &str, body: F)
where
    F: FnOnce(Bed) -> R,
    R: Future<Output = ()>,
{
    if let Ok(dir) = env::var(CHILD) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        return runtime.block_on(body(Bed::open(mode, PathBuf::from(dir))));
    }
    let root = nix::unistd::geteuid().is_root();
    if mode != Mode::Rootless && !root {
        eprintln!("not root: nothing to test here");
        return;
    }
    let (_, path) = path.split_once("::").expect("crate name first");
    let dir = tempfile::Builder::new()
        .prefix("stockade-case-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("temp dir");
    let user = (root && mode == Mode::Rootless).then(unique_uid);
    prepare(dir.path(), user);
    let pid = run_child(path, dir.path(), user);
    judge_leftovers(mode, dir.path(), user, pid);
}

fn unique_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    FIRST_UID + (std::process::id() % 10_000) * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn prepare(dir: &Path, user: Option<u32>) {
    for name in ["state", "agents", "workspace", "base.git", "home"] {
        fs::create_dir(dir.join(name)).expect("mkdir");
    }
    fs::write(dir.join("home/.netrc"), CANARY).expect("canary");
    fs::write(dir.join("state/token"), CANARY).expect("canary");
    fs::copy(PROBE, dir.join("agents/probe")).expect("probe");
    fs::write(dir.join("workspace/README"), "original").expect("workspace");
    fs::set_permissions(dir.join("workspace/README"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::create_dir(dir.join("workspace/src")).expect("workspace");
    fs::write(dir.join("workspace/src/lib"), "code").expect("workspace");
    fs::write(dir.join("base.git/HEAD"), "ref: refs/heads/main").expect("base");
    // The build directory may be closed to other users.
    fs::copy(LAUNCHER, dir.join("launcher")).expect("launcher");
    fs::copy(env::current_exe().expect("own path"), dir.join("tests")).expect("tests");
    if let Some(uid) = user {
        give(dir, uid);
    }
}

fn give(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("chown");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("read dir").flatten() {
            give(&entry.path(), uid);
        }
    }
}

/// Starts a program that was written a moment ago. A test beside this one that forks in that
/// moment holds the file open for writing until it execs, and the kernel says "busy".
fn start(command: &mut Command) -> std::process::Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(5));
            }
            child => return child.expect("starts"),
        }
    }
}

fn run_child(path: &str, dir: &Path, user: Option<u32>) -> u32 {
    let mut command = test_command(dir, path);
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = start(&mut command);
    let pid = child.id();
    let output = child.wait_with_output().expect("ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{path}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    assert!(text(&output.stdout).contains("1 passed"), "{path} did not run");
    pid
}

/// This test binary, for one of its tests, in the child role.
pub(crate) fn test_command(dir: &Path, path: &str) -> Command {
    let mut command = Command::new(dir.join("tests"));
    command
        .args(["--exact", path, "--nocapture"])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir.join("home"))
        .env("API_KEY", CANARY)
        .env(CHILD, dir);
    if path.contains("docker::") {
        command.env(docker_bed::SOCKET, docker_bed::socket());
    }
    command
}

fn judge_leftovers(mode: Mode, dir: &Path, user: Option<u32>, owner: u32) {
    eventually("the sandboxes directory is empty", || {
        fs::read_dir(dir.join("state/sandboxes")).map_or(0, Iterator::count) == 0
    });
    if let Some(uid) = user {
        eventually("no process of the case's user is left", || {
            processes().iter().all(|p| p.uid != uid)
        });
    }
    if mode == Mode::Docker {
        eventually("no container of the case is left", || {
            docker_bed::containers_of(owner).is_empty()
        });
    }
    eventually("no cgroup of the case is left", || cgroups_of(owner).is_empty());
    let dir = dir.to_str().expect("text");
    eventually("no process works for the case", || running_for(dir).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(dir), "something is still mounted: {mounts}");
}

/// Processes with a directory on their command line.
fn running_for(dir: &str) -> Vec<i32> {
    let names_it = |process: &HostProcess| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(dir)
    };
    processes().iter().filter(|p| names_it(p)).map(|p| p.pid).collect()
}

/// Waits for something that happens soon but not at once.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// cgroups of sandboxes that a process made.
pub(crate) fn cgroups_of(owner: u32) -> Vec<PathBuf> {
    fn walk(dir: &Path, mark: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("stockade-run_") && name.contains(mark) {
                found.push(entry.path());
            } else if depth > 0 {
                walk(&entry.path(), mark, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &format!("-{owner}-"), 8, &mut found);
    found
}

#[derive(Debug, Clone)]
pub(crate) struct HostProcess {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) uid: u32,
    pub(crate) name: String,
}

/// All processes of the host that have not ended.
pub(crate) fn processes() -> Vec<HostProcess> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name))?;
            Some(line[name.len()..].split_whitespace().next()?.to_owned())
        };
        if field("State:")? == "Z" {
            return None;
        }
        Some(HostProcess {
            pid,
            parent: field("PPid:")?.parse().ok()?,
            uid: field("Uid:")?.parse().ok()?,
            name: field("Name:")?,
        })
    })
    .collect()
}

/// Processes below one, however deep, and those in its containers, which are below the daemon.
pub(crate) fn descendants(of: i32) -> Vec<HostProcess> {
    let mut found = below(of);
    if env::var_os(docker_bed::SOCKET).is_some() {
        found.extend(docker_bed::processes_of(of));
    }
    found
}

pub(crate) fn below(of: i32) -> Vec<HostProcess> {
    let all = processes();
    let mut found: Vec<HostProcess> = Vec::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|p| p.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// What a case works with.
pub(crate) struct Bed {
    pub(crate) mode: Mode,
    pub(crate) dir: PathBuf,
    pub(crate) sandbox: Box<dyn Sandbox>,
}

impl Bed {
    pub(crate) fn open(mode: Mode, dir: PathBuf) -> Self {
        Self {
            mode,
            sandbox: mode.sandbox(&dir),
            dir,
        }
    }

    pub(crate) fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            limits: SandboxLimits {
                memory_bytes: 1 << 30,
                pids: 200,
                cpu_millis: 2000,
                disk_bytes: 64 << 20,
                ..SandboxLimits::default()
            },
            workspace: Some(self.dir.join("workspace")),
            base_git: Some(self.dir.join("base.git")),
            agents_dir: Some(self.dir.join("agents")),
            ..SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::new_v4()))
        }
    }

    pub(crate) async fn create(&self) -> Arc<dyn SandboxHandle> {
        self.create_from(self.spec()).await
    }

    pub(crate) async fn create_from(&self, spec: SandboxSpec) -> Arc<dyn SandboxHandle> {
        let (handle, _closed) = self.create_with_boundary(spec).await;
        handle
    }

    /// Whether the backend notes that this does not work in it. Where the kernel is the host's
    /// everything does.
    pub(crate) async fn misses(&self, what: &str) -> bool {
        let facts = self.sandbox.check().await.unwrap_or_else(|e| panic!("{e}"));
        let misses = facts.notes.iter().any(|note| note.contains(what));
        assert!(!misses || !self.mode.shares_the_kernel(), "{facts:?}");
        misses
    }

    /// A proved sandbox and its boundary, which nobody serves any more.
    pub(crate) async fn create_with_boundary(&self, spec: SandboxSpec) -> (Arc<dyn SandboxHandle>, Boundary) {
        let fresh = self.sandbox.create(spec).await;
        let proved = prove_closed(fresh.unwrap_or_else(|e| panic!("{e}"))).await;
        proved.unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Proves a sandbox behind a door that refuses everything.
pub(crate) async fn prove_closed(
    mut fresh: Box<dyn FreshSandbox>,
) -> Result<(Arc<dyn SandboxHandle>, Boundary), SandboxError> {
    let boundary = fresh.take_boundary().expect("a boundary");
    assert!(fresh.take_boundary().is_none(), "it is handed over once");
    let again = |fd: &std::os::fd::OwnedFd| fd.try_clone().expect("dup");
    let copy = Boundary {
        tcp4: again(&boundary.tcp4),
        tcp6: boundary.tcp6.as_ref().map(again),
        dns4: again(&boundary.dns4),
        dns6: boundary.dns6.as_ref().map(again),
    };
    let door = ClosedDoor::serve(boundary, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    Ok((handle, copy))
}

pub(crate) fn config(dir: &Path) -> NativeConfig {
    NativeConfig {
        launcher: vec![dir.join("launcher").into()],
        state_dir: dir.join("state"),
        copy_workspace: false,
        warm: 0,
    }
}

/// How a command went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) exit: Exit,
}

impl Ran {
    /// The output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.exit, Exit::Code(0), "{self:?}");
        self.out
    }
}

pub(crate) fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        timeout: Some(Duration::from_secs(30)),
        ..ExecRequest::default()
    }
}

pub(crate) async fn collect(mut process: Process) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut exit = None;
    while let Some(output) = process.output.recv().await {
        assert_eq!(exit, None, "nothing follows the end");
        match output {
            Output::Stdout(bytes) => out.extend_from_slice(&bytes),
            Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            Output::Exited(how) => exit = Some(how),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        out: text(out),
        err: text(err),
        exit: exit.expect("an end"),
    }
}

pub(crate) async fn run(handle: &dyn SandboxHandle, argv: &[&str]) -> Ran {
    match handle.exec(request(argv)).await {
        Ok(process) => collect(process).await,
        Err(e) => panic!("{argv:?}: {e}"),
    }
}

pub(crate) async fn sh(handle: &dyn SandboxHandle, script: &str) -> Ran {
    run(handle, &["sh", "-c", script]).await
}

pub(crate) async fn probe(handle: &dyn SandboxHandle, args: &[&str]) -> Ran {
    let argv: Vec<_> = ["/opt/agents/probe"].iter().chain(args).copied().collect();
    run(handle, &argv).await
}

/// The names in a directory inside, sorted, one on each line. Not by `ls`: that of coreutils 9
/// does not work in gVisor before 2023.
pub(crate) async fn names(handle: &dyn SandboxHandle, dir: &str) -> String {
    let script = "find \"$1\" -mindepth 1 -maxdepth 1 -printf '%f\\n' | sort";
    run(handle, &["sh", "-c", script, "names", dir]).await.ok()
}

/// How many processes inside have this text in their command line.
pub(crate) async fn count(handle: &dyn SandboxHandle, text: &str) -> usize {
    let script = r#"n=0; for p in /proc/[0-9]*; do
        [ "$p" = "/proc/$$" ] && continue
        case "$(tr '\0' ' ' < $p/cmdline 2>/dev/null)" in *"$WHAT"*) n=$((n+1));; esac
        done; echo $n"#;
    let mut request = request(&["sh", "-c", script]);
    request.env.insert("WHAT".to_owned(), text.to_owned());
    let process = handle.exec(request).await.expect("starts");
    collect(process).await.ok().trim().parse().expect("a number")
}

pub(crate) fn bytes(len: usize) -> Bytes {
    // Not periodic in any power of two: lost or repeated chunks show.
    (0..len).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect()
}

#[track_caller]
pub(crate) fn refused<T>(result: Result<T, SandboxError>) -> SandboxError {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(e) => e,
    }
}

use crate::docker_bed;
pub(crate) use crate::modes::{Mode, cases};
