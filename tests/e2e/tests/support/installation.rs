//! One installation of Stockade, made for one test and gone with it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::program::{self, Ran, binary};

/// A state directory, a home directory, a configuration and an environment.
pub(crate) struct Installation {
    dir: TempDir,
    config: Map<String, Value>,
    vars: Vec<(String, String)>,
    program: PathBuf,
    user: Option<u32>,
}

impl Installation {
    /// An installation without a model.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("stockade-e2e-").tempdir().unwrap();
        for part in ["state", "home"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self {
            dir,
            config: Map::new(),
            vars: Vec::new(),
            program: binary().to_owned(),
            user: None,
        }
    }

    /// An installation whose model follows a script of these turns.
    pub(crate) fn scripted(turns: Value) -> Self {
        let mut this = Self::bare();
        this.script(turns);
        this
    }

    /// Makes the model follow a script of these turns.
    pub(crate) fn script(&mut self, turns: Value) {
        let script = self.path("script.yaml");
        // JSON is YAML.
        fs::write(&script, json!({ "turns": turns }).to_string()).unwrap();
        self.configure("provider", json!(format!("scripted:{}", script.display())));
    }

    /// Sets a key of the configuration file.
    pub(crate) fn configure(&mut self, key: &str, value: Value) {
        self.config.insert(key.to_owned(), value);
        let text = Value::Object(self.config.clone()).to_string();
        fs::write(self.state().join("stockade.yaml"), text).unwrap();
    }

    /// Lets sandboxes of the default environment reach these domains on this machine.
    pub(crate) fn reach(&mut self, nameserver: std::net::SocketAddr, domains: &[String]) {
        self.configure("nameservers", json!([nameserver]));
        self.configure(
            "environments",
            json!([{
                "name": "default", "network": "custom", "domains": domains,
                "address_exceptions": [{ "cidr": "127.0.0.0/8", "reason": "the servers of this test" }],
            }]),
        );
    }

    /// Sets an environment variable of every command.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.vars.push((name.to_owned(), value.to_owned()));
    }

    /// Lets every command run as another user, who owns the installation and can read the program.
    pub(crate) fn belongs_to(&mut self, user: u32) {
        let copy = self.path("stockade");
        fs::copy(binary(), &copy).unwrap();
        self.program = copy;
        self.user = Some(user);
        for part in ["", "state", "home"] {
            chown(self.path(part), Some(user), Some(user)).unwrap();
        }
    }

    /// A place inside the installation's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A command of this installation, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path());
        self.dress(&mut command);
        command
    }

    /// Gives a command the installation's environment and nothing of the caller's.
    pub(crate) fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home())
            .env("USER", "tester")
            .env("STOCKADE_STATE_DIR", self.state())
            .envs(self.vars.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
    }

    /// The program of this installation.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command of this installation to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        program::run(self.command(args)).await
    }

    /// Files of the state directory that contain a text.
    pub(crate) fn files_with(&self, text: &str) -> Vec<String> {
        let root = self.state();
        let (mut found, mut todo) = (Vec::new(), vec![root.clone()]);
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    todo.push(path);
                } else if fs::read(&path)
                    .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
                {
                    found.push(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    /// Fails the test when a run, or something half-made, is there.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        for part in ["runs", "sandboxes"] {
            let left: Vec<_> = fs::read_dir(self.state().join(part))
                .into_iter()
                .flatten()
                .flatten()
                .collect();
            assert!(left.is_empty(), "{part}/ holds {left:?}");
        }
    }
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    user() == 0
}

/// The user the tests run as.
pub(crate) fn user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}
