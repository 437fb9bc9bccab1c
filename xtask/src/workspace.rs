//! What cargo knows about this workspace, read from `cargo metadata --no-deps`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The workspace: where it is and what its crates import.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) crates: Vec<Crate>,
}

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) deps: Vec<Dep>,
    pub(crate) targets: Vec<Target>,
}

/// One thing cargo builds from a crate: a library, a binary, an example, a test.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
}

/// One direct dependency, by package name also when it is renamed.
#[derive(Debug)]
pub(crate) struct Dep {
    pub(crate) name: String,
    pub(crate) kind: DepKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DepKind {
    Normal,
    Build,
    Dev,
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built from.
    pub(crate) fn load() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .context("cannot start `cargo metadata`")?;
        if !output.status.success() {
            bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let json = serde_json::from_slice(&output.stdout).context("`cargo metadata` did not print JSON")?;
        Self::from_metadata(&json)
    }

    /// Reads cargo's metadata format, version 1. Anything it does not understand is an error: a checker that
    /// skips what it cannot read would pass.
    pub(crate) fn from_metadata(json: &Value) -> Result<Self> {
        let crates = array(json, "packages")?
            .iter()
            .map(Crate::from_metadata)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            root: text(json, "workspace_root")?.into(),
            target: text(json, "target_directory")?.into(),
            crates,
        })
    }

    /// Is there such a binary, example or test?
    pub(crate) fn has_target(&self, package: &str, kind: &str, name: &str) -> bool {
        self.crates
            .iter()
            .filter(|krate| krate.name == package)
            .flat_map(|krate| &krate.targets)
            .any(|target| target.kind == kind && target.name == name)
    }
}

impl Crate {
    fn from_metadata(json: &Value) -> Result<Self> {
        let name = text(json, "name")?;
        let read = || -> Result<Self> {
            Ok(Self {
                name: name.clone(),
                deps: array(json, "dependencies")?
                    .iter()
                    .map(Dep::from_metadata)
                    .collect::<Result<_>>()?,
                targets: array(json, "targets")?
                    .iter()
                    .map(Target::from_metadata)
                    .collect::<Result<_>>()?,
            })
        };
        read().with_context(|| format!("in the metadata of {name}"))
    }
}

impl Dep {
    fn from_metadata(json: &Value) -> Result<Self> {
        let kind = match json.get("kind") {
            None | Some(Value::Null) => DepKind::Normal,
            Some(Value::String(kind)) if kind == "build" => DepKind::Build,
            Some(Value::String(kind)) if kind == "dev" => DepKind::Dev,
            Some(other) => bail!("unknown kind of dependency {other}"),
        };
        Ok(Self {
            name: text(json, "name")?,
            kind,
        })
    }
}

impl Target {
    fn from_metadata(json: &Value) -> Result<Self> {
        let kind = array(json, "kind")?
            .first()
            .and_then(Value::as_str)
            .context("a target without a kind")?;
        Ok(Self {
            name: text(json, "name")?,
            kind: kind.to_owned(),
        })
    }
}

/// The cargo that started this program, so that a toolchain override holds, without what it told this program
/// about its own package: build scripts that look at those variables (ring's does) would run again every time.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_program());
    clean(&mut command);
    command
}

/// Where that cargo is.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Takes the variables of this program's own package out of a child's environment.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(name);
        }
    }
}

fn describes_a_package(variable: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"];
    let names = ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    prefixes.iter().any(|prefix| variable.starts_with(prefix)) || names.contains(&variable)
}

fn text(json: &Value, key: &str) -> Result<String> {
    let value = json.get(key).and_then(Value::as_str);
    Ok(value
        .with_context(|| format!("cargo's metadata has no text `{key}`"))?
        .to_owned())
}

fn array<'a>(json: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    json.get(key)
        .and_then(Value::as_array)
        .with_context(|| format!("cargo's metadata has no list `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_person_survive_and_the_package_does_not() {
        assert!(describes_a_package("CARGO_PKG_NAME") && describes_a_package("CARGO_MANIFEST_DIR"));
        assert!(!describes_a_package("CARGO_TARGET_DIR") && !describes_a_package("CARGO_INCREMENTAL"));
        assert!(
            std::env::var_os("CARGO_PKG_NAME").is_some(),
            "cargo describes this package to its tests"
        );
        let removed: Vec<_> = cargo()
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(removed.iter().any(|name| name == "CARGO_PKG_NAME"), "{removed:?}");
    }
}
