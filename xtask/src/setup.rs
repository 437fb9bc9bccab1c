//! `cargo xtask setup`: what the tests and benches need from the machine.
//!
//! Given: git, a C compiler and Rust. Missing Debian packages are installed when this runs as root on a system
//! with apt; otherwise the exact command is printed and the exit code is 5.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::agents::Agents;
use crate::failure::Unavailable;
use crate::process;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also install what the benches compare with (bubblewrap)
    #[arg(long)]
    bench: bool,
    /// Say what is missing and what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// A program that must be in PATH, or a file with its whole path, the Debian package that brings it, and what needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) purpose: &'static str,
}

const fn need(program: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need {
        program,
        package,
        purpose,
    }
}

/// Every test run needs these.
pub(crate) const BASE: &[Need] = &[
    need("git", "git", "repositories in and changes out"),
    need("cc", "gcc libc6-dev", "SQLite and ring are compiled from C"),
];

/// The end-to-end tests install real coding agents with npm.
pub(crate) const AGENTS: &[Need] = &[
    need("node", "nodejs", "npm runs on it; the agents bring their own"),
    need(
        "npm",
        "npm",
        "installs Claude Code, Codex and OpenCode for the end-to-end tests",
    ),
];

/// The Guard's tests have other servers read what it forwards.
pub(crate) const JUDGES: &[Need] = &[
    need("nginx", "nginx-light", "reads what the Guard forwards, on loopback"),
    need("haproxy", "haproxy", "reads what the Guard forwards, on loopback"),
];

/// The sandbox tests run every backend, as root, and images from a real registry.
pub(crate) const SANDBOX: &[Need] = &[
    need(
        "dockerd",
        "docker.io",
        "the backend docker is tested on a daemon of its own",
    ),
    need("runc", "runc", "the backend runc"),
    need("crun", "crun", "the backend crun"),
    need("runsc", "runsc", "the backend runsc (gVisor)"),
    need(
        "docker-registry",
        "docker-registry",
        "images are pulled from a registry on loopback",
    ),
    need("skopeo", "skopeo", "puts images into that registry"),
    need("umoci", "umoci", "makes the layers of those images"),
    need(
        "bwrap",
        "bubblewrap",
        "the red team's doubles are half-open sandboxes made with it",
    ),
    need("mmdebstrap", "mmdebstrap", "makes a small Debian for an image"),
];

/// The end-to-end tests run these inside sandboxes, as people do, and the servers they talk to.
pub(crate) const CLIENTS: &[Need] = &[
    need("curl", "curl", "a client of the end-to-end tests"),
    need("wget", "wget", "a client of the end-to-end tests"),
    need("openssl", "openssl", "a client of the end-to-end tests"),
    need(
        "/usr/bin/python3",
        "python3",
        "a client of the end-to-end tests, and their searches",
    ),
    need("/usr/bin/pip3", "python3-pip", "a client of the end-to-end tests"),
    need(
        "/usr/lib/python3/dist-packages/requests/__init__.py",
        "python3-requests",
        "a client of the end-to-end tests",
    ),
    need(
        "/usr/lib/python3/dist-packages/urllib3/__init__.py",
        "python3-urllib3",
        "a client of the end-to-end tests",
    ),
    need(
        "/usr/lib/python3/dist-packages/httpx/__init__.py",
        "python3-httpx",
        "a client of the end-to-end tests",
    ),
    need(
        "/usr/bin/javac",
        "default-jdk-headless",
        "a client of the end-to-end tests",
    ),
    need("/usr/bin/go", "golang-go", "a client of the end-to-end tests"),
    need("/usr/bin/ssh", "openssh-client", "a client of the end-to-end tests"),
    need(
        "/usr/sbin/sshd",
        "openssh-server",
        "what ssh, scp, sftp and git talk to",
    ),
    need("/usr/bin/psql", "postgresql-client", "a client of the end-to-end tests"),
    need("/usr/bin/pg_ctlcluster", "postgresql", "what psql talks to"),
    need("/usr/bin/redis-cli", "redis-tools", "a client of the end-to-end tests"),
    need("/usr/bin/redis-server", "redis-server", "what redis-cli talks to"),
];

/// The benches compare with these.
pub(crate) const BENCH: &[Need] = &[
    need("bwrap", "bubblewrap", "the sandbox bench runs it side by side"),
    need("squid", "squid", "the egress bench runs it side by side"),
    need("tinyproxy", "tinyproxy", "the egress bench runs it side by side"),
    need("nft", "nftables", "the egress bench redirects with it"),
    need("ip", "iproute2", "the egress bench makes a network namespace with it"),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut needs = [BASE, AGENTS, CLIENTS].concat();
    needs.extend(sandbox());
    if args.bench {
        needs.extend(BENCH);
    }
    let agents = Agents::locate(&Workspace::load()?.target)?;
    if args.dry_run {
        dry_run(&needs, &agents);
        return Ok(());
    }
    packages(&needs)?;
    agents.install()
}

fn dry_run(needs: &[Need], agents: &Agents) {
    for need in needs {
        let state = if is_there(need.program) { "there" } else { "MISSING" };
        println!("{state:<8}  {:<8}  {}", need.program, need.purpose);
    }
    let missing = missing(needs);
    if !missing.is_empty() {
        println!("would run: {}", apt_command(&missing));
    }
    match agents.problem() {
        None => println!("there     agents    in {}", agents.dir.display()),
        Some(problem) => println!(
            "MISSING   agents    {problem}; would run: {}",
            process::show(&agents.npm())
        ),
    }
}

fn is_there(program: &str) -> bool {
    match program.starts_with('/') {
        true => Path::new(program).exists(),
        false => process::in_path(program),
    }
}

fn missing(needs: &[Need]) -> Vec<Need> {
    needs.iter().copied().filter(|need| !is_there(need.program)).collect()
}

fn apt_command(missing: &[Need]) -> String {
    format!(
        "apt-get update && apt-get install -y --no-install-recommends {}",
        package_names(missing).join(" ")
    )
}

fn package_names(missing: &[Need]) -> Vec<&'static str> {
    missing.iter().flat_map(|need| need.package.split(' ')).collect()
}

/// Makes sure that every program is there.
pub(crate) fn packages(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("setup: {} is missing ({})", need.program, need.purpose);
    }
    if !process::in_path("apt-get") {
        return Err(Unavailable(format!(
            "{} not found, and this system has no apt: install the equivalent of the Debian packages {}",
            programs(&missing),
            package_names(&missing).join(" ")
        ))
        .into());
    }
    if !is_root() {
        return Err(Unavailable(format!(
            "{} not found: run as root: {}",
            programs(&missing),
            apt_command(&missing)
        ))
        .into());
    }
    apt_install(&missing)
}

fn apt_install(needs: &[Need]) -> Result<()> {
    let start = Instant::now();
    let apt = || {
        let mut command = Command::new("apt-get");
        // Another installation may hold the lock for a moment, for example on a machine that has just started.
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
        command
    };
    let unavailable = || Unavailable(format!("apt could not install {}", package_names(needs).join(" ")));
    process::run(apt().arg("update")).with_context(unavailable)?;
    process::run(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(package_names(needs)),
    )
    .with_context(unavailable)?;
    let missing = missing(needs);
    if !missing.is_empty() {
        return Err(Unavailable(format!("apt ran, but {} is still not in PATH", programs(&missing))).into());
    }
    println!(
        "setup: Debian packages installed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn programs(needs: &[Need]) -> String {
    needs.iter().map(|need| need.program).collect::<Vec<_>>().join(", ")
}

/// What the tests of sandboxes and of the Guard need beyond the base. Without root the former have nothing to do
/// with it, and the latter do with the judges that are there.
pub(crate) fn sandbox() -> Vec<Need> {
    if is_root() {
        [SANDBOX, JUDGES].concat()
    } else {
        Vec::new()
    }
}

/// Owner of `/proc/self` is the effective user, which is what decides about apt.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named() {
        let needs = [
            need("sh", "dash", "control"),
            need("no-such-program-1", "no-such-a no-such-b", "test"),
        ];
        assert_eq!(
            apt_command(&missing(&needs)),
            "apt-get update && apt-get install -y --no-install-recommends no-such-a no-such-b"
        );
        assert!(missing(&needs[..1]).is_empty());
        packages(&needs[..1]).unwrap();
    }
}
