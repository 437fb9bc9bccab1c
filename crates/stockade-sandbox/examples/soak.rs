//! Makes and destroys many native sandboxes, kills the supervising process now and then with
//! `kill -9`, and counts what is left.
//!
//! `cargo run --release -p stockade-sandbox --example soak -- LAUNCHER [COUNT] [AT_ONCE] [KILLS]`
//!
//! Every sandbox is measured and runs `/bin/true`. One that was alive when its supervisor was
//! killed counts as killed; every other one must have worked. The result is one JSON object on
//! standard output for `cargo xtask bench soak`; the exit code is 1 when anything failed or is left.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stockade_domain::{RunId, SandboxLimits};
use stockade_ports::{
    sandbox::{ExecRequest, Exit, Output, ProbePlan, Sandbox, SandboxSpec, prove},
    sim::ClosedDoor,
};
use stockade_sandbox::{NativeConfig, NativeSandbox, original_destination};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Word that makes this program a supervisor.
const SUPERVISE: &str = "supervise";
/// Longest wait for the last traces to go: the kernel takes its time with namespaces.
const SETTLE: Duration = Duration::from_secs(30);

fn main() -> Result<ExitCode, Failure> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|word| word == SUPERVISE) {
        supervise(&args[1..])?;
        return Ok(ExitCode::SUCCESS);
    }
    let launcher = args.first().ok_or("name the launcher binary")?;
    let number = |at: usize, default: u64| match args.get(at) {
        Some(text) => text
            .to_str()
            .and_then(|t| t.parse().ok())
            .ok_or("numbers after the launcher"),
        None => Ok(default),
    };
    let report = soak(launcher, number(1, 10_000)?, number(2, 8)?, number(3, 20)?)?;
    println!("{}", report.json());
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a host has of ours, or of anybody's where ours cannot be told apart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Traces {
    processes: usize,
    namespaces: BTreeSet<String>,
    mounts: usize,
    cgroups: usize,
    files: usize,
}

impl Traces {
    fn count(state: &Path) -> Self {
        let mut traces = Self::default();
        for process in entries(Path::new("/proc")) {
            let Ok(name) = fs::read_to_string(process.join("comm")) else {
                continue;
            };
            traces.processes += usize::from(name.starts_with("stockade-"));
            for kind in ["net", "mnt", "pid", "user", "ipc", "uts", "cgroup"] {
                if let Ok(target) = fs::read_link(process.join("ns").join(kind)) {
                    traces.namespaces.insert(target.to_string_lossy().into_owned());
                }
            }
        }
        traces.mounts = fs::read_to_string("/proc/self/mountinfo").map_or(0, |text| text.lines().count());
        traces.cgroups = cgroups(Path::new("/sys/fs/cgroup"), 8);
        traces.files = entries(&state.join("sandboxes")).count();
        traces
    }

    /// What is here and was not there before.
    fn left(&self, before: &Self) -> serde_json::Value {
        let namespaces = self.namespaces.difference(&before.namespaces).count();
        serde_json::json!({
            "processes": self.processes.saturating_sub(before.processes),
            "namespaces": namespaces,
            "mounts": self.mounts.saturating_sub(before.mounts),
            "cgroups": self.cgroups.saturating_sub(before.cgroups),
            "files": self.files.saturating_sub(before.files),
        })
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn cgroups(dir: &Path, depth: u32) -> usize {
    let dirs = entries(dir).filter(|path| path.is_dir() && !path.is_symlink());
    dirs.map(|path| {
        let ours = path
            .file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.starts_with("stockade-"));
        let below = if depth == 0 { 0 } else { cgroups(&path, depth - 1) };
        usize::from(ours) + below
    })
    .sum()
}

#[derive(Debug)]
struct Report {
    made: u64,
    failed: Vec<String>,
    killed: u64,
    kills: u64,
    seconds: f64,
    left: serde_json::Value,
    descriptors: i64,
}

impl Report {
    fn is_clean(&self) -> bool {
        let left = self.left.as_object().into_iter().flat_map(|map| map.values());
        self.failed.is_empty() && self.descriptors <= 0 && left.filter_map(|n| n.as_u64()).sum::<u64>() == 0
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "made": self.made, "failed": self.failed, "killed_with_their_supervisor": self.killed,
            "supervisors_killed": self.kills, "seconds": self.seconds, "left": self.left,
            "descriptors_left_in_supervisor": self.descriptors,
        })
    }
}

fn soak(launcher: &OsStr, count: u64, at_once: u64, kills: u64) -> Result<Report, Failure> {
    let state = tempfile::tempdir()?;
    let before = Traces::count(state.path());
    let begun = Instant::now();
    let mut report = Report {
        made: 0,
        failed: Vec::new(),
        killed: 0,
        kills: 0,
        seconds: 0.0,
        left: serde_json::Value::Null,
        descriptors: 0,
    };
    // Each doomed supervisor gets an equal share, and the last one finishes in peace.
    let share = count / (kills + 1);
    while report.made < count {
        let doomed = report.kills < kills && count - report.made > share;
        let wanted = if doomed { u64::MAX } else { count - report.made };
        let mut child = Command::new(std::env::current_exe()?)
            .args([OsStr::new(SUPERVISE), launcher, state.path().as_os_str()])
            .args([wanted.to_string(), at_once.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let (mut begun_here, mut ended_here) = (0, 0);
        for line in lines {
            let line = line?;
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("begin", _) => begun_here += 1,
                ("ok", _) => {
                    ended_here += 1;
                    report.made += 1;
                }
                ("descriptors", more) => report.descriptors = more.parse()?,
                (_, reason) => {
                    ended_here += 1;
                    report.failed.push(reason.to_owned());
                }
            }
            if doomed && ended_here >= share {
                child.kill()?;
                break;
            }
        }
        let status = child.wait()?;
        if doomed {
            report.kills += 1;
            report.killed += begun_here - ended_here;
        } else if !status.success() {
            return Err(format!("a supervisor ended with {status}").into());
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    let settling = Instant::now();
    loop {
        report.left = Traces::count(state.path()).left(&before);
        if report.is_clean() || settling.elapsed() > SETTLE {
            return Ok(report);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `supervise LAUNCHER STATE COUNT AT_ONCE`: what is killed.
fn supervise(args: &[OsString]) -> Result<(), Failure> {
    let [launcher, state, count, at_once] = args else {
        return Err("supervise LAUNCHER STATE COUNT AT_ONCE".into());
    };
    let number = |text: &OsString| text.to_str().and_then(|t| t.parse::<u64>().ok()).ok_or("a number");
    let (count, at_once) = (number(count)?, number(at_once)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let sandbox = Arc::new(NativeSandbox::new(NativeConfig {
            launcher: vec![launcher.clone()],
            state_dir: state.into(),
            copy_workspace: false,
            warm: 0,
        }));
        sandbox.reap().await?;
        // The first one opens what stays open for the process's life.
        one(&sandbox).await?;
        let descriptors = || entries(Path::new("/proc/self/fd")).count();
        let before = descriptors();
        let left = Arc::new(AtomicU64::new(count));
        let workers: Vec<_> = (0..at_once)
            .map(|_| tokio::spawn(work(Arc::clone(&sandbox), Arc::clone(&left))))
            .collect();
        for worker in workers {
            worker.await?;
        }
        let mut now = descriptors();
        for _ in 0..100 {
            if now <= before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            now = descriptors();
        }
        println!("descriptors {}", i64::try_from(now)? - i64::try_from(before)?);
        Ok(())
    })
}

async fn work(sandbox: Arc<NativeSandbox>, left: Arc<AtomicU64>) {
    let take = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    while take().is_ok() {
        println!("begin");
        match one(&sandbox).await {
            Ok(()) => println!("ok"),
            Err(error) => println!("failed {}", error.to_string().replace('\n', " ")),
        }
    }
}

async fn one(sandbox: &NativeSandbox) -> Result<(), Failure> {
    let mut fresh = sandbox
        .create(SandboxSpec {
            limits: SandboxLimits {
                memory_bytes: 256 << 20,
                pids: 64,
                disk_bytes: 16 << 20,
                ..SandboxLimits::default()
            },
            ..SandboxSpec::plain(RunId::from_uuid(uuid::Uuid::new_v4()))
        })
        .await?;
    let door = ClosedDoor::serve(fresh.take_boundary().ok_or("no boundary")?, original_destination);
    let (handle, _) = prove(fresh, &ProbePlan::standard(None), &door).await?;
    let mut process = handle
        .exec(ExecRequest {
            argv: vec!["/bin/true".to_owned()],
            ..ExecRequest::default()
        })
        .await?;
    while let Some(output) = process.output.recv().await {
        if let Output::Exited(exit) = output
            && exit != Exit::Code(0)
        {
            return Err(format!("/bin/true: {exit:?}").into());
        }
    }
    handle.destroy().await?;
    Ok(())
}
