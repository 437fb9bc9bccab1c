//! Git repositories to work on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::installation::Installation;

/// A repository on this machine.
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
}

impl Repository {
    /// Makes a repository with these files and commits them.
    pub(crate) fn with(installation: &Installation, files: &[(&str, &str)]) -> Self {
        let this = Self::empty(&installation.path("repo"));
        for (name, content) in files {
            this.write(name, content);
        }
        this.commit("first");
        this
    }

    /// Makes a repository without a commit.
    pub(crate) fn empty(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let this = Self { path: path.to_owned() };
        this.git(&["init", "--quiet", "--initial-branch=main"]);
        this.git(&["config", "user.name", "Tester"]);
        this.git(&["config", "user.email", "tester@example.com"]);
        this
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&[
            "commit",
            "--quiet",
            "--no-gpg-sign",
            "--allow-empty",
            "--message",
            message,
        ]);
    }

    /// Runs git in it, and gives what it printed.
    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.path)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    pub(crate) fn source(&self) -> &str {
        self.path.to_str().unwrap()
    }
}
