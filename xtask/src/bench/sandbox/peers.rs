//! What others take to run `/bin/true`: bubblewrap, OCI runtimes alone, Docker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
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

/// Milliseconds of one bubblewrap, from start to end.
pub(super) fn bwrap() -> Result<f64> {
    timed(Command::new("bwrap").args(BWRAP))
}

/// Adds a row for each peer that is installed, and a note for each that is not.
pub(super) fn run(report: &mut Report) -> Result<()> {
    let dir = tempdir()?;
    let bundle = dir.0.join("bundle");
    make_rootfs(&bundle.join("rootfs"))?;
    for (name, program) in NAMES {
        if !has(program) {
            report.notes.push(format!("{program} is not installed: no row for it"));
            continue;
        }
        let samples = match *program {
            "dockerd" => docker(&bundle.join("rootfs"), SLOW),
            "runsc" => oci("runsc", &["--network=none"], &dir.0, &bundle, SLOW),
            other => oci(other, &[], &dir.0, &bundle, QUICK),
        };
        report.row(name, &samples.with_context(|| format!("measuring {program}"))?)?;
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

fn docker(rootfs: &Path, count: usize) -> Result<Vec<f64>> {
    let daemon = Dockerd::start()?;
    let host = format!("unix://{}", daemon.socket().display());
    let docker = || {
        let mut command = Command::new("docker");
        command.args(["-H", &host]);
        command
    };
    let archive = rootfs.with_extension("tar");
    process::run(
        Command::new("tar")
            .arg("-C")
            .arg(rootfs)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    )?;
    timed(docker().arg("import").arg(&archive).arg("bench:tiny"))?;
    let mut samples = Vec::new();
    for _ in 0..=count {
        samples.push(timed(docker().args([
            "run",
            "--rm",
            "--network=none",
            "bench:tiny",
            "/bin/true",
        ]))?);
    }
    Ok(samples.split_off(1))
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
