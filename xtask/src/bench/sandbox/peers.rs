//! What others take to run `/bin/true`: bubblewrap, OCI runtimes alone, Docker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::json;

use super::{QUICK, SLOW, has};
use crate::{
    bench::report::Report,
    dockerd::Dockerd,
    process::{self, Captured},
};

/// As much of the same as bubblewrap does by itself.
const BWRAP: &[&str] = &[
    "--unshare-all",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "/bin/true",
];
const RUNC: &str = "runc run /bin/true";
const RUNSC: &str = "runsc run /bin/true";
const DOCKER: &str = "docker run /bin/true";
/// Each peer's row and program.
pub(super) const NAMES: &[(&str, &str)] = &[(RUNC, "runc"), (RUNSC, "runsc"), (DOCKER, "dockerd")];
/// Turns the peers and our backends on them take with each other.
const TURNS: usize = 4;
/// Lives and those at a time that bubblewrap's rate is measured with, as ours is.
const LIVES: usize = 600;
const AT_ONCE: usize = 8;

/// Milliseconds of one bubblewrap, from start to end.
pub(super) fn bwrap() -> Result<f64> {
    timed(Command::new("bwrap").args(BWRAP))
}

/// Milliseconds of `count` bubblewraps started at once, each from the first start to its end.
pub(super) fn bwrap_burst(count: usize) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let one = move || -> Result<f64> {
        timed(Command::new("bwrap").args(BWRAP))?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    let threads: Vec<_> = (0..count).map(|_| thread::spawn(one)).collect();
    threads.into_iter().map(joined).collect()
}

/// Bubblewraps a second, eight at a time.
pub(super) fn bwrap_rate() -> Result<f64> {
    let begun = Instant::now();
    let one = || (0..LIVES / AT_ONCE).try_for_each(|_| bwrap().map(drop));
    let threads: Vec<_> = (0..AT_ONCE).map(|_| thread::spawn(one)).collect();
    threads.into_iter().try_for_each(joined)?;
    #[expect(clippy::cast_precision_loss)]
    Ok(LIVES as f64 / begun.elapsed().as_secs_f64())
}

fn joined<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a measuring thread panicked"))?
}

/// Adds a row for each peer that is installed beside one for our backend on it, in turns, and a
/// note for each that is not. `ours` measures that many sandboxes of a backend.
pub(super) fn run(report: &mut Report, ours: impl Fn(&[&str], usize) -> Result<Vec<f64>>) -> Result<()> {
    let dir = tempdir()?;
    let bundle = dir.0.join("bundle");
    let rootfs = bundle.join("rootfs");
    make_rootfs(&rootfs)?;
    for (name, program) in NAMES {
        if !has(program) {
            report.notes.push(format!("{program} is not installed: no row for it"));
            continue;
        }
        let daemon = (*program == "dockerd").then(|| Docker::start(&rootfs)).transpose()?;
        let socket = daemon.as_ref().map(|docker| docker.0.socket().display().to_string());
        let (backend, count) = match *program {
            "dockerd" => ("docker", SLOW),
            "runsc" => ("runsc", SLOW),
            other => (other, QUICK),
        };
        let args: Vec<_> = [Some(backend), socket.as_deref()].into_iter().flatten().collect();
        let (mut theirs, mut mine) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let count = count.div_ceil(TURNS);
            let samples = match &daemon {
                Some(docker) => docker.samples(count),
                None if backend == "runsc" => oci(backend, &["--network=none"], &dir.0, &bundle, count),
                None => oci(backend, &[], &dir.0, &bundle, count),
            };
            theirs.extend(samples.with_context(|| format!("measuring {program}"))?);
            mine.extend(ours(&args, count)?);
        }
        let row = format!("stockade on {backend}: created, proved, /bin/true ended");
        report.row(&row, &mine)?;
        report.row(name, &theirs)?;
        report.compare(&row, name)?;
    }
    Ok(())
}

fn timed(command: &mut Command) -> Result<f64> {
    let shown = process::show(command);
    let start = Instant::now();
    let Captured { success, stderr, .. } = process::capture(command)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if !success {
        bail!("`{shown}` failed: {stderr}");
    }
    Ok(took)
}

/// `RUNTIME run` on a bundle, the first of them thrown away.
fn oci(program: &str, flags: &[&str], dir: &Path, bundle: &Path, count: usize) -> Result<Vec<f64>> {
    let mounts: Vec<_> = [("proc", "/proc", "proc"), ("tmpfs", "/dev", "tmpfs")]
        .map(|(source, at, kind)| json!({"source": source, "destination": at, "type": kind}))
        .into();
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"]
        .map(|kind| json!({"type": kind}))
        .into();
    let config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts,
        "process": {"args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true},
        "linux": {"namespaces": namespaces},
    });
    fs::write(bundle.join("config.json"), config.to_string())?;
    let mut samples = Vec::new();
    for number in 0..=count {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(dir.join(format!("{program}-state")))
            .args(flags);
        command.arg("run").arg("--bundle").arg(bundle);
        command.arg(format!("bench-{}-{number}", std::process::id()));
        samples.push(timed(&mut command)?);
    }
    Ok(samples.split_off(1))
}

/// A daemon of our own that has the little root as an image.
struct Docker(Dockerd);

impl Docker {
    fn start(rootfs: &Path) -> Result<Self> {
        let docker = Self(Dockerd::start()?);
        let archive = rootfs.with_extension("tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(rootfs).arg("-cf").arg(&archive).arg(".");
        process::run(&mut tar)?;
        timed(docker.command().arg("import").arg(&archive).arg("bench:tiny"))?;
        Ok(docker)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &format!("unix://{}", self.0.socket().display())]);
        command
    }

    fn samples(&self, count: usize) -> Result<Vec<f64>> {
        let run = ["run", "--rm", "--network=none", "bench:tiny", "/bin/true"];
        let samples: Result<Vec<_>> = (0..=count).map(|_| timed(self.command().args(run))).collect();
        Ok(samples?.split_off(1))
    }
}

/// A root with `/bin/true` and what it is linked with, and nothing else.
fn make_rootfs(root: &Path) -> Result<()> {
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let linked = process::capture(Command::new("ldd").arg("/bin/true"))?;
    let paths = linked.stdout.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain(["/bin/true"]) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a path without a directory")?)?;
        fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

/// A directory that is removed with its value.
struct TempDir(PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Result<TempDir> {
    let made = process::capture(Command::new("mktemp").args(["-d", "-t", "stockade-bench-XXXXXX"]))?;
    if !made.success {
        bail!("mktemp failed: {}", made.stderr);
    }
    Ok(TempDir(PathBuf::from(made.stdout.trim())))
}
