//! Git on the host, hardened: it reads no configuration but ours, runs no hook, asks
//! nobody, and speaks only the one protocol it was started for.

use std::{ffi::OsStr, io::Write as _, os::unix::ffi::OsStrExt as _, path::Path, process::Stdio, time::Duration};

use stockade_domain::Failure;
use stockade_ports::GitLogin;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time,
};

use crate::{RunnerConfig, mishap, text};

/// Most bytes of git's standard error that are looked at.
const STDERR_LIMIT: usize = 16 << 10;
/// Most memory, in KiB, that git may map while it works on an untrusted patch: a small
/// binary patch can describe a very large file.
const UNTRUSTED_MEMORY_KIB: u64 = 4 << 20;

/// Settings that no repository may override: command-line configuration comes last.
const HARDENING: [&str; 10] = [
    "core.protectHFS=true",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "submodule.recurse=false",
];

/// What git answered.
pub(crate) struct Answer {
    /// Whether it ended with 0.
    pub(crate) ok: bool,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// The end of its standard error.
    pub(crate) stderr: String,
}

impl Answer {
    /// Standard output as one trimmed line of text.
    pub(crate) fn line(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// What git reads.
enum Input {
    None,
    Bytes(Vec<u8>),
    File(std::fs::File),
}

/// One git command to run on the host.
pub(crate) struct Git {
    command: Command,
    input: Input,
    limit: u64,
    timeout: Duration,
    what: String,
    login: Option<GitLogin>,
}

impl Git {
    /// A command; `what` names it in failures.
    pub(crate) fn new(config: &RunnerConfig, what: &str) -> Self {
        let mut command = Command::new(&config.git);
        harden(&mut command, config);
        Self::over(command, config, what)
    }

    /// A command over untrusted input, with a bound on its memory.
    pub(crate) fn bounded(config: &RunnerConfig, what: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        let script = format!("ulimit -v {UNTRUSTED_MEMORY_KIB} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(&config.git);
        harden(&mut command, config);
        Self::over(command, config, what)
    }

    fn over(command: Command, config: &RunnerConfig, what: &str) -> Self {
        Self {
            command,
            input: Input::None,
            limit: 16 << 20,
            timeout: config.clone_timeout,
            what: what.to_owned(),
            login: None,
        }
    }

    /// Opens the server with a credential.
    ///
    /// It stands in the environment of this one process, not on its command line and in no file.
    /// Redirects are not followed, so no other server gets it; that also turns off the alternates
    /// of git's older HTTP protocol (git-config(1), `http.followRedirects`).
    pub(crate) fn login(mut self, login: Option<&GitLogin>) -> Self {
        let Some(login) = login else { return self };
        let header = [b"Authorization: ", login.authorization().expose()].concat();
        self.command
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", OsStr::from_bytes(&header))
            .env("GIT_CONFIG_KEY_1", "http.followRedirects")
            .env("GIT_CONFIG_VALUE_1", "false");
        self.login = Some(login.clone());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Works on this git directory.
    pub(crate) fn git_dir(mut self, dir: &Path) -> Self {
        self.command.arg("--git-dir").arg(dir);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Feeds standard input.
    pub(crate) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Input::Bytes(bytes);
        self
    }

    /// Makes a file standard input.
    pub(crate) fn input_file(mut self, file: std::fs::File) -> Self {
        self.input = Input::File(file);
        self
    }

    /// Refuses more output than this many bytes.
    pub(crate) fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Runs it.
    pub(crate) async fn run(mut self) -> Result<Answer, Failure> {
        let what = std::mem::take(&mut self.what);
        let timeout = self.timeout;
        match time::timeout(timeout, self.answer(&what)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::transient(
                "git_timeout",
                format!("{what} took longer than {} seconds", timeout.as_secs()),
            )),
        }
    }

    /// Runs it and makes every bad ending a failure.
    pub(crate) async fn succeed(self) -> Result<Answer, Failure> {
        let what = self.what.clone();
        let answer = self.run().await?;
        if answer.ok {
            Ok(answer)
        } else {
            Err(failure(&what, &answer.stderr))
        }
    }

    async fn answer(mut self, what: &str) -> Result<Answer, Failure> {
        let (stdin, input) = match self.input {
            Input::None => (Stdio::null(), None),
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
            Input::File(file) => (Stdio::from(file), None),
        };
        self.command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = self.command.spawn().map_err(|error| no_git(&error))?;
        let pipe = child.stdin.take();
        let feed = async move {
            if let (Some(bytes), Some(mut pipe)) = (input, pipe) {
                // Git may end without reading everything; its answer says why.
                let _ = pipe.write_all(&bytes).await;
            }
        };
        let limit = self.limit;
        let pipe = child.stdout.take();
        let out = async {
            match read_to(pipe, limit).await.map_err(|e| mishap::io(what, &e))? {
                Some(bytes) => Ok(bytes),
                None => Err(Failure::terminal(
                    "too_large",
                    format!("{what}: more than {limit} bytes"),
                )),
            }
        };
        let feed = async {
            feed.await;
            Ok(())
        };
        let err = async { Ok(tail_of(child.stderr.take()).await) };
        // An error ends the wait for the rest and, by dropping the child, git itself.
        let ((), stdout, stderr) = tokio::try_join!(feed, out, err)?;
        let status = child.wait().await.map_err(|e| mishap::io(what, &e))?;
        Ok(Answer {
            ok: status.success(),
            stdout,
            stderr: match &self.login {
                Some(login) => login.clean(&stderr),
                None => stderr,
            },
        })
    }
}

fn harden(command: &mut Command, config: &RunnerConfig) {
    command
        .env_clear()
        .env("PATH", &config.path)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_ADVICE", "0");
    for setting in HARDENING {
        command.arg("-c").arg(setting);
    }
}

/// Reads to the end; `None` when there is more than the limit.
async fn read_to(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit.saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = text::MiddleOut::new(STDERR_LIMIT);
    let mut buffer = vec![0; 4096];
    if let Some(mut pipe) = pipe {
        while let Ok(count) = pipe.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            kept.push(&buffer[..count]);
        }
    }
    kept.into_text()
}

fn no_git(error: &std::io::Error) -> Failure {
    Failure::terminal("git_missing", format!("git could not be started: {error}"))
        .with_hint("install git on the runner's host")
}

/// Reads git's words (in the C locale) into a failure.
pub(crate) fn failure(what: &str, stderr: &str) -> Failure {
    let words = text::redact(stderr.trim());
    let message = format!("{what} failed: {}", text::middle_out(&words, 2048));
    let says = |any: &[&str]| any.iter().any(|piece| stderr.contains(piece));
    if says(&["No space left on device", "Disk quota exceeded"]) {
        return Failure::terminal("disk_full", message).with_hint("free some space on the runner's host");
    }
    if says(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "error: 401",
        "error: 403",
    ]) {
        return Failure::terminal("unauthorized", message).with_hint(
            "a private repository needs its server under 'git: hosts:' in the configuration, with a 'credential' \
                 that may do this; or clone it where you have access and name the clone's path",
        );
    }
    if says(&["error: 301", "error: 302", "error: 303", "error: 307", "error: 308"]) {
        return Failure::terminal("repo_moved", message).with_hint(
            "the repository has another address now; a credential follows no redirect, so use that address",
        );
    }
    if says(&[
        "does not appear to be a git repository",
        "not a git repository",
        "invalid gitfile format",
    ]) {
        return Failure::terminal("repo_invalid", message).with_hint("name a git repository");
    }
    if says(&["not found", "does not exist", "error: 404", "error: 410"]) {
        return Failure::terminal("repo_not_found", message)
            .with_hint("check the address; a private repository looks missing");
    }
    if says(&[
        "Could not resolve",
        "Couldn't connect",
        "Failed to connect",
        "Connection refused",
        "Connection reset",
        "timed out",
        "early EOF",
        "unexpected disconnect",
        "error: 429",
        "error: 500",
        "error: 502",
        "error: 503",
        "error: 504",
    ]) {
        return Failure::transient("repo_unreachable", message);
    }
    Failure::unknown("git_failed", message)
}

/// A configuration file that lets git read a repository another user owns.
///
/// The named repository was chosen by whoever asked for the run, and serving its committed
/// objects runs nothing of its configuration. The setting must be in a file: git takes it
/// from nowhere else in the process that serves the objects.
pub(crate) fn trust_file(path: &Path) -> std::io::Result<()> {
    std::fs::File::create(path)?.write_all(b"[safe]\n\tdirectory = *\n")
}

#[cfg(test)]
mod tests {
    use stockade_domain::FailureClass;

    use super::*;

    #[test]
    fn words_become_classes() {
        for (words, code, class) in [
            (
                "fatal: could not read Username for 'https://x'",
                "unauthorized",
                FailureClass::Terminal,
            ),
            (
                "fatal: write error: No space left on device",
                "disk_full",
                FailureClass::Terminal,
            ),
            (
                "fatal: unable to access 'https://x/': Could not resolve host: x",
                "repo_unreachable",
                FailureClass::Transient,
            ),
            (
                "fatal: repository 'https://x/' not found",
                "repo_not_found",
                FailureClass::Terminal,
            ),
            ("fatal: something new", "git_failed", FailureClass::Unknown),
        ] {
            let failure = failure("the clone", words);
            assert_eq!((failure.code.as_str(), failure.class), (code, class), "{words}");
        }
    }

    #[tokio::test]
    async fn output_is_bounded_and_the_environment_is_empty() {
        let config = RunnerConfig::new(std::env::temp_dir());
        let answer = Git::new(&config, "version")
            .args(["--version"])
            .succeed()
            .await
            .unwrap();
        assert!(answer.line().starts_with("git version"));
        let refused = Git::new(&config, "version").args(["--version"]).limit(3).run().await;
        assert_eq!(refused.err().unwrap().code, "too_large");
        let environment = Git::bounded(&config, "environment")
            .args(["-c", "alias.environment=!env", "environment"])
            .succeed()
            .await
            .unwrap();
        assert!(environment.line().contains("HOME=/nonexistent"));
        assert!(
            !environment.line().contains("CARGO"),
            "the runner's own environment leaked"
        );
    }
}
