//! Agents inside the sandbox that speak the Agent Client Protocol (ACP, version 1).
//!
//! The protocol's own crate is not used here: it reads lines of any length and decodes
//! them into closed types, and what comes out of a sandbox is neither of bounded length
//! nor of a known version. [`rpc`] is the little of JSON-RPC that ACP needs, with bounds.
//! Updates this version does not know are skipped, requests it does not know are refused.

mod files;
mod launch;
mod permission;
mod rpc;
mod session;
mod tools;
mod turn;

use std::path::{Path, PathBuf};

use stockade_domain::{Failure, HarnessProfile};

use crate::live::Stage;

/// What of an agent is not installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not installed: {} is missing in {}", paths.join(", "), dir.display())]
pub struct Missing {
    /// Where it was looked for.
    pub dir: PathBuf,
    /// What is not there, relative to that.
    pub paths: Vec<String>,
    /// The command that installs it.
    pub install: String,
}

/// Whether everything a profile requires is below the directory of installed agents.
///
/// # Errors
///
/// [`Missing`] says what is not there and how to install it.
pub fn installed(profile: &HarnessProfile, dir: &Path) -> Result<(), Missing> {
    let is_there = |path: &String| !path.is_empty() && !path.starts_with('/') && dir.join(path).exists();
    let paths: Vec<String> = profile
        .requires
        .iter()
        .filter(|path| !is_there(path))
        .cloned()
        .collect();
    if paths.is_empty() {
        return Ok(());
    }
    Err(Missing {
        dir: dir.to_owned(),
        paths,
        install: profile.install.replace("${AGENTS_DIR}", &dir.to_string_lossy()),
    })
}

/// Refuses to provision a run whose agent is not there.
pub(crate) fn require(name: &str, profile: &HarnessProfile, dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        if profile.requires.is_empty() {
            return Ok(());
        }
        let message = format!("the agent '{name}' needs a directory of installed agents, and none is configured");
        return Err(
            Failure::terminal("agent_not_installed", message).with_hint("set agents_dir; 'stockade doctor' says more")
        );
    };
    installed(profile, dir).map_err(|missing| {
        let hint = match missing.install.as_str() {
            "" => "install the agent there".to_owned(),
            install => format!("install it with: {install}"),
        };
        Failure::terminal("agent_not_installed", format!("the agent '{name}' is {missing}")).with_hint(hint)
    })
}

/// Starts the agent and sees it through its prompts.
pub(crate) async fn drive(stage: &Stage<'_>, profile: &HarnessProfile) -> Result<(), Failure> {
    let mut session = Box::pin(session::Session::start(stage, profile)).await?;
    let done = Box::pin(session.run()).await;
    session.close().await;
    done
}

#[cfg(test)]
mod tests {
    use stockade_domain::Wire;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_to_install_it() {
        let dir = tempfile::tempdir().unwrap();
        let profile = HarnessProfile {
            command: vec!["x".into()],
            env: Default::default(),
            files: Vec::new(),
            wire: Wire::OpenaiChat,
            offer_fs: false,
            requires: vec!["a/b".into()],
            install: "npm install --prefix ${AGENTS_DIR} x".into(),
        };
        let failure = require("x", &profile, Some(dir.path())).unwrap_err();
        assert_eq!(failure.code, "agent_not_installed");
        assert!(failure.message.contains("a/b"), "{failure}");
        assert!(failure.hint.unwrap().contains(dir.path().to_str().unwrap()));
        assert!(require("x", &profile, None).is_err());
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        assert!(require("x", &profile, Some(dir.path())).is_ok());
    }
}
