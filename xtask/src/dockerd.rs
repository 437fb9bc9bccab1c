//! A Docker daemon of our own, for tests and benches: with its data, its socket and its containerd in a directory
//! that is gone afterwards, and with no hand on the host's network.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{process, setup};

/// Tells the tests where the daemon listens.
pub(crate) const VARIABLE: &str = "STOCKADE_TEST_DOCKER";
/// Longest the daemon may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The command that gets the daemon's socket in STOCKADE_TEST_DOCKER, for example `cargo nextest run -p stockade-sandbox`
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Runs a command beside a daemon.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::packages(&setup::sandbox())?;
    let daemon = Dockerd::start()?;
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).env(VARIABLE, daemon.socket());
    process::run(&mut command)
}

/// A daemon that runs. Stopped when this is dropped.
pub(crate) struct Dockerd {
    child: Child,
    dir: PathBuf,
}

impl Dockerd {
    /// Starts one and waits until it listens. Needs root, and `dockerd` in PATH.
    pub(crate) fn start() -> Result<Self> {
        // Socket names are short by law (unix(7): 108 bytes), so not below the target directory.
        let dir = std::env::temp_dir().join(format!("stockade-dockerd-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join("empty.json"), "{}")?;
        let log = File::create(dir.join("log"))?;
        let child = command(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let mut daemon = Self { child, dir };
        daemon.wait_until_it_listens()?;
        Ok(daemon)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let begun = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("dockerd ended with {status}:\n{}", self.last_words());
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "dockerd did not come up within {} s:\n{}",
                    PATIENCE.as_secs(),
                    self.last_words()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Asks it to stop, which also stops its containers and its containerd, and insists if it does not.
    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = process::capture(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > FAREWELL {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // The innermost first.
        for mount in below(&mounts, &self.dir).iter().rev() {
            let _ = process::capture(Command::new("umount").arg("--lazy").arg(mount));
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("NOTE: {} was left: {error}", self.dir.display());
        }
    }
}

fn command(dir: &Path) -> Command {
    // A daemon nobody can stop any more would be left: where it can be had, it ends with us.
    let mut command = if process::in_path("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "dockerd"]);
        command
    } else {
        Command::new("dockerd")
    };
    for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(option).arg(dir.join(name));
    }
    // Whatever the host has configured for its own daemon is not for this one.
    command.arg("--config-file").arg(dir.join("empty.json"));
    command
        .arg("--host")
        .arg(format!("unix://{}", dir.join("docker.sock").display()));
    command.args([
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--bridge=none",
    ]);
    // Should it find the host's containerd running and use it, the host's containers are not touched.
    command.args(["--containerd-namespace", "stockade-test"]);
    command.args(["--containerd-plugins-namespace", "stockade-test-plugins"]);
    command
}

/// Mount points in a directory, in the order they were mounted (proc(5)).
fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_the_daemon_are_its_own() {
        let info = "1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / /tmp/d/data rw - overlay overlay rw\n\
                    3 2 0:3 / /tmp/d/data/x rw - tmpfs tmpfs rw\n4 1 0:4 / /tmp/dd rw - tmpfs tmpfs rw";
        assert_eq!(
            below(info, Path::new("/tmp/d")),
            [Path::new("/tmp/d/data"), Path::new("/tmp/d/data/x")]
        );
    }

    #[test]
    fn it_leaves_the_hosts_network_alone() {
        let command = process::show(&command(Path::new("/tmp/d")));
        for option in ["--iptables=false", "--bridge=none", "--config-file /tmp/d/empty.json"] {
            assert!(command.contains(option), "{command}");
        }
    }
}
