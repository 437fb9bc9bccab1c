//! Child processes: run one, show what it prints, and keep what the caller needs to read.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

/// Starts a program that is to succeed, with its output on ours.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// What a program printed, and how it ended.
pub(crate) struct Captured {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program quietly.
pub(crate) fn capture(command: &mut Command) -> Result<Captured> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    Ok(Captured {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program with both its streams shown line by line as they come, and kept.
pub(crate) fn tee(command: &mut Command) -> Result<Captured> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let err = thread::spawn(move || stderr.map(|from| pass_on(from, std::io::stderr())).unwrap_or_default());
    let stdout = stdout.map(|from| pass_on(from, std::io::stdout())).unwrap_or_default();
    let stderr = err.join().unwrap_or_default();
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    Ok(Captured {
        success: status.success(),
        stdout,
        stderr,
    })
}

/// Bytes, not `lines()`: a test may print what is not UTF-8.
fn pass_on(from: impl Read, mut to: impl Write) -> String {
    let mut from = BufReader::new(from);
    let mut kept = String::new();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // Nobody left to read our output is no reason to stop the tests.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

/// The command line for a message: program and arguments, without the environment.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Is there such a program in PATH?
pub(crate) fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| is_executable(&dir.join(program)))
}

/// A file (or a link to one) that may be executed.
pub(crate) fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tee_keeps_both_streams_and_the_failure() {
        let kept =
            tee(Command::new("sh").args(["-c", "echo out; echo err >&2; printf '\\377 bytes\\n'; exit 3"])).unwrap();
        assert!(!kept.success);
        assert_eq!(kept.stdout, "out\n\u{fffd} bytes\n");
        assert_eq!(kept.stderr, "err\n");
    }

    #[test]
    fn programs_are_found_in_path_only() {
        assert!(in_path("sh"));
        assert!(!in_path("no-such-program-anywhere"));
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err().to_string();
        assert!(error.contains("sh -c exit 7") && error.contains('7'), "{error}");
    }
}
