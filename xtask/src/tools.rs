//! cargo-deny and cargo-fuzz, from PATH, from the cache, or built once into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::agents::cached;
use crate::process;
use crate::workspace::{cargo, cargo_program, clean};

/// The line whose configuration format `deny.toml` is written in.
const DENY_VERSION: &str = "0.20";
/// The line that runs without nightly when no sanitizer is asked for.
const FUZZ_VERSION: &str = "0.13";

/// A program that cargo installs: where it is, or will be.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    cache: PathBuf,
}

impl Tool {
    fn locate(name: &'static str, version: &'static str, target: &Path) -> Result<Self> {
        Ok(Self {
            name,
            version,
            cache: cached(target, "STOCKADE_TOOLS_DIR", "tools")?,
        })
    }

    /// cargo-fuzz.
    pub(crate) fn fuzz(target: &Path) -> Result<Self> {
        Self::locate("cargo-fuzz", FUZZ_VERSION, target)
    }

    /// The program, if it is there already.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        if process::in_path(self.name) {
            return Some(self.name.into());
        }
        Some(self.cache.join("bin").join(self.name)).filter(|program| process::is_executable(program))
    }

    /// Builds it when it is missing. Meant to run beside the workspace's own build: at low priority, and with
    /// little optimisation, because the build takes minutes and a run takes a second.
    pub(crate) fn install(&self) -> Result<()> {
        if self.program().is_some() {
            return Ok(());
        }
        let start = Instant::now();
        let mut command = if process::in_path("nice") {
            let mut nice = Command::new("nice");
            nice.args(["-n", "15"]).arg(cargo_program());
            clean(&mut nice);
            nice
        } else {
            cargo()
        };
        command
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&self.cache);
        command.arg(format!("{}@^{}", self.name, self.version));
        // Its own target directory, thrown away by cargo, so that nothing of it fills or blocks ours.
        command
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_BUILD_TARGET_DIR");
        for (setting, value) in [
            ("OPT_LEVEL", "1"),
            ("LTO", "off"),
            ("CODEGEN_UNITS", "16"),
            ("DEBUG", "false"),
        ] {
            command.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
        }
        let built = process::capture(command.stdin(Stdio::null()))?;
        if !built.success {
            bail!("`{}` failed:\n{}", process::show(&command), built.stderr.trim());
        }
        println!("{}: built in {:.0} s", self.name, start.elapsed().as_secs_f64());
        Ok(())
    }

    /// The program for a command line; an error says how to get it.
    pub(crate) fn command(&self) -> Result<Command> {
        match self.program() {
            Some(program) => Ok(Command::new(program)),
            None => bail!("{0} is missing: cargo install {0} --locked", self.name),
        }
    }
}

/// cargo-deny.
pub(crate) struct Deny(Tool);

impl Deny {
    pub(crate) fn locate(target: &Path) -> Result<Self> {
        Tool::locate("cargo-deny", DENY_VERSION, target).map(Self)
    }

    /// See [`Tool::install`].
    pub(crate) fn install(&self) -> Result<()> {
        self.0.install()
    }

    /// `cargo deny check CHECKS`.
    pub(crate) fn check(&self, checks: &[&str]) -> Result<Command> {
        let mut command = self.0.command()?;
        command
            .args(["--workspace", "check", "--hide-inclusion-graph"])
            .args(checks);
        Ok(command)
    }

    /// Known vulnerabilities. The list comes from the network: when it cannot be fetched the check says so and
    /// does not fail, because a test run must also pass on a machine without that connection.
    pub(crate) fn check_advisories(&self) -> Result<()> {
        let result = process::capture(&mut self.check(&["advisories"])?)?;
        if result.success {
            return Ok(());
        }
        if database_unreachable(&result.stderr) {
            println!("NOTE: the advisory database could not be fetched, so known vulnerabilities were NOT checked");
            return Ok(());
        }
        eprint!("{}", result.stderr);
        bail!("cargo-deny found an advisory")
    }
}

fn database_unreachable(stderr: &str) -> bool {
    stderr.contains("failed to fetch advisory database") || stderr.contains("failed to load advisory database")
}
