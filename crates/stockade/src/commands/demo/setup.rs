//! What the demo works on: a small repository with a failing test, an agent, a script.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use stockade_domain::AgentSpec;

use crate::{exit::Complaint, yaml};

pub(super) const PROMPT: &str = include_str!("../../../demo/prompt.txt");
const FILES: [(&str, &str); 4] = [
    ("README.md", include_str!("../../../demo/repo/README.md")),
    ("slug.sh", include_str!("../../../demo/repo/slug.sh")),
    ("test.sh", include_str!("../../../demo/repo/test.sh")),
    ("publish.sh", include_str!("../../../demo/repo/publish.sh")),
];

/// A directory of the demo's own, removed at the end.
pub(super) struct Place {
    path: PathBuf,
    keep: bool,
}

impl Place {
    pub(super) fn make(keep: bool) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("stockade-demo-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Makes the repository and commits it.
pub(super) fn repository(place: &Path) -> anyhow::Result<PathBuf> {
    let repo = place.join("slug");
    fs::create_dir(&repo)?;
    for (name, content) in FILES {
        fs::write(repo.join(name), content)?;
    }
    git(&repo, &["init", "--quiet", "--initial-branch=main"])?;
    git(&repo, &["add", "--all"])?;
    git(
        &repo,
        &[
            "-c",
            "user.name=Demo",
            "-c",
            "user.email=demo@example.com",
            "commit",
            "--quiet",
            "--no-gpg-sign",
            "--message=A slug with a bug",
        ],
    )?;
    Ok(repo)
}

fn git(repo: &Path, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repo)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Complaint::unavailable("git is not installed").hint("apt-get install git"),
            _ => Complaint::unavailable(format!("cannot start git: {e}")),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Complaint::unavailable(format!(
        "git failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
    .into())
}

/// Writes the script of the scripted model.
pub(super) fn script(place: &Path) -> anyhow::Result<PathBuf> {
    let path = place.join("script.yaml");
    fs::write(&path, include_str!("../../../demo/script.yaml"))?;
    Ok(path)
}

/// The agent with its one question.
pub(super) fn agent() -> Result<AgentSpec, Complaint> {
    yaml::parse(include_str!("../../../demo/agent.yaml"), "demo/agent.yaml")
}
