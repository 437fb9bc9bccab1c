//! cargo-deny, from PATH, from the cache, or built once into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::agents::cached;
use crate::process;
use crate::workspace::{cargo, cargo_program, clean};

/// The line whose configuration format `deny.toml` is written in.
const DENY_VERSION: &str = "0.20";

/// Where cargo-deny is, or will be.
pub(crate) struct Deny {
    cache: PathBuf,
}

impl Deny {
    pub(crate) fn locate(target: &Path) -> Result<Self> {
        Ok(Self {
            cache: cached(target, "STOCKADE_TOOLS_DIR", "tools")?,
        })
    }

    /// The program, if it is there already.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        if process::in_path("cargo-deny") {
            return Some("cargo-deny".into());
        }
        Some(self.cache.join("bin/cargo-deny")).filter(|program| process::is_executable(program))
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
        command.arg(format!("cargo-deny@^{DENY_VERSION}"));
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
        println!("cargo-deny: built in {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// `cargo deny check CHECKS`.
    pub(crate) fn check(&self, checks: &[&str]) -> Result<Command> {
        let Some(program) = self.program() else {
            bail!("cargo-deny is missing: cargo install cargo-deny --locked");
        };
        let mut command = Command::new(program);
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
