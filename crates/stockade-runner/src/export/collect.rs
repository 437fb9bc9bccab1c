//! Asks git inside the sandbox what changed. Its answer is untrusted data.

use std::{collections::BTreeMap, time::Duration};

use stockade_domain::Failure;
use stockade_ports::{
    ExecRequest, Exit, Output, SandboxError, SandboxHandle,
    sandbox::{BASE_GIT_DIR, WORKSPACE},
};

use crate::{mishap, text};

/// Longest time one command of the export may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Where the export keeps its index and its new objects, inside.
const SCRATCH: &str = "/tmp/.stockade-export";

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// A patch in git's format; empty when nothing changed.
    pub(super) patch: Vec<u8>,
    /// Things a person should know.
    pub(super) notes: Vec<String>,
}

/// Collects the difference between the base commit and the workspace.
///
/// Git works on the base's git directory, which the agent cannot change, with an index and
/// an object directory of its own: the agent's `.git` is neither read nor written, and its
/// configuration, hooks and filters do not exist for this git.
pub(super) async fn collect(sandbox: &dyn SandboxHandle, base: &str, limit: u64) -> Result<Collected, Failure> {
    let inside = Inside { sandbox, limit };
    // Through the sandbox and not with `rm` and `mkdir`: an image need not have them.
    match sandbox.remove(SCRATCH, true).await {
        Ok(()) | Err(SandboxError::NotFound(_)) => {}
        Err(error) => return Err(mishap::sandbox(error)),
    }
    let objects = sandbox.make_dir(&format!("{SCRATCH}/objects"), 0o700).await;
    objects.map_err(mishap::sandbox)?;
    inside.git(&["read-tree", base]).await?.expect("reading the base")?;
    let mut notes = Vec::new();
    let added = inside.git(&["add", "--all", "--ignore-errors", "--", "."]).await?;
    if added.exit != Exit::Code(0) {
        if added.stderr.contains("No space left on device") {
            return Err(mishap::sandbox(SandboxError::DiskFull(
                "the change could not be collected".to_owned(),
            )));
        }
        if !matches!(added.exit, Exit::Code(_)) {
            added.expect("collecting the change")?;
        } else {
            notes.push(format!(
                "some files could not be read: {}",
                text::middle_out(added.stderr.trim(), 1000)
            ));
        }
    }
    let nested = inside.leave_out_nested(base).await?;
    if !nested.is_empty() {
        notes.push(format!(
            "left out, because they are repositories of their own: {}",
            nested.join(", ")
        ));
    }
    let diff = inside
        .git(&[
            "diff",
            "--cached",
            "--binary",
            "--full-index",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--ignore-submodules=all",
            base,
            "--",
        ])
        .await?;
    let patch = diff.stdout.clone();
    diff.expect("computing the change")?;
    Ok(Collected { patch, notes })
}

struct Inside<'a> {
    sandbox: &'a dyn SandboxHandle,
    limit: u64,
}

#[derive(Debug)]
struct Answer {
    exit: Exit,
    stdout: Vec<u8>,
    stderr: String,
}

impl Answer {
    fn expect(self, what: &str) -> Result<(), Failure> {
        let words = text::redact(&text::middle_out(self.stderr.trim(), 2000));
        match self.exit {
            Exit::Code(0) => Ok(()),
            _ if self.stderr.contains("No space left on device") => {
                Err(mishap::sandbox(SandboxError::DiskFull(format!("{what}: {words}"))))
            }
            Exit::Code(code) => Err(Failure::terminal(
                "export_failed",
                format!("{what} failed in the sandbox (exit code {code}): {words}"),
            )),
            Exit::Signal(signal) => Err(Failure::unknown(
                "export_failed",
                format!("{what} was ended by signal {signal} in the sandbox: {words}"),
            )),
            Exit::TimedOut => Err(Failure::terminal(
                "export_timeout",
                format!("{what} took longer than {} seconds", TIMEOUT.as_secs()),
            )),
            Exit::OutputLimit => Err(Failure::terminal("export_failed", format!("{what} printed too much"))),
            Exit::SandboxGone => Err(Failure::unknown("sandbox_gone", format!("{what}: the sandbox ended"))),
        }
    }
}

impl Inside<'_> {
    async fn git(&self, args: &[&str]) -> Result<Answer, Failure> {
        const SETTINGS: [&str; 6] = [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.untrackedCache=false",
            "core.quotePath=true",
            "safe.directory=*",
            "gc.auto=0",
        ];
        let mut argv = vec!["git".to_owned()];
        for setting in SETTINGS {
            argv.extend(["-c".to_owned(), setting.to_owned()]);
        }
        argv.extend(args.iter().map(|a| (*a).to_owned()));
        self.run(argv).await
    }

    async fn run(&self, argv: Vec<String>) -> Result<Answer, Failure> {
        let env = BTreeMap::from(
            [
                ("GIT_DIR", BASE_GIT_DIR.to_owned()),
                ("GIT_WORK_TREE", WORKSPACE.to_owned()),
                ("GIT_INDEX_FILE", format!("{SCRATCH}/index")),
                ("GIT_OBJECT_DIRECTORY", format!("{SCRATCH}/objects")),
                ("GIT_ALTERNATE_OBJECT_DIRECTORIES", format!("{BASE_GIT_DIR}/objects")),
                ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
                ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
                ("GIT_ATTR_NOSYSTEM", "1".to_owned()),
                ("GIT_OPTIONAL_LOCKS", "0".to_owned()),
                ("HOME", "/nonexistent".to_owned()),
                ("LC_ALL", "C".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let request = ExecRequest {
            argv,
            env,
            cwd: Some(WORKSPACE.to_owned()),
            timeout: Some(TIMEOUT),
            ..ExecRequest::default()
        };
        let mut process = self.sandbox.exec(request).await.map_err(|error| match error {
            SandboxError::NotFound(_) => Failure::terminal("git_missing", "there is no git in the sandbox")
                .with_hint("use an image that has git: the change is collected with it"),
            error => mishap::sandbox(error),
        })?;
        let mut stdout = Vec::new();
        let mut stderr = text::MiddleOut::new(8 << 10);
        loop {
            match process.output.recv().await {
                Some(Output::Stdout(bytes)) => {
                    if (stdout.len() + bytes.len()) as u64 > self.limit {
                        let message = format!("the change is larger than {} bytes", self.limit);
                        return Err(Failure::terminal("too_large", message)
                            .with_hint("let the agent add build output to .gitignore, or raise max_patch_bytes"));
                    }
                    stdout.extend_from_slice(&bytes);
                }
                Some(Output::Stderr(bytes)) => stderr.push(&bytes),
                Some(Output::Exited(exit)) => {
                    return Ok(Answer {
                        exit,
                        stdout,
                        stderr: stderr.into_text(),
                    });
                }
                None => {
                    return Ok(Answer {
                        exit: Exit::SandboxGone,
                        stdout,
                        stderr: stderr.into_text(),
                    });
                }
            }
        }
    }

    /// Takes repositories that the agent made inside the workspace out of the index; what
    /// would be exported of them is only a commit id that nobody else has.
    async fn leave_out_nested(&self, base: &str) -> Result<Vec<String>, Failure> {
        let raw = self
            .git(&[
                "diff",
                "--cached",
                "--raw",
                "--no-renames",
                "--no-abbrev",
                "-z",
                base,
                "--",
            ])
            .await?;
        let fields: Vec<String> = raw
            .stdout
            .split(|b| *b == 0)
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect();
        raw.expect("looking for nested repositories")?;
        let nested: Vec<String> = fields
            .chunks(2)
            .filter_map(|pair| match pair {
                [modes, path] if modes.split(' ').nth(1) == Some("160000") => Some(path.clone()),
                _ => None,
            })
            .collect();
        for path in &nested {
            let known = self.git(&["cat-file", "-e", &format!("{base}:{path}")]).await?;
            let undo: &[&str] = match known.exit {
                Exit::Code(0) => &["reset", "--quiet", base, "--", path],
                _ => &["update-index", "--force-remove", "--", path],
            };
            self.git(undo).await?.expect("leaving out a nested repository")?;
        }
        Ok(nested)
    }
}
