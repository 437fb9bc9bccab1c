//! Commands of the sandbox that is none: children of this process in a process group each.

use std::{os::unix::process::ExitStatusExt as _, process::Stdio, time::Duration};

use bytes::Bytes;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use stockade_ports::sandbox::{
    AGENT_USER, Control, ExecRequest, Exit, Output, Process, ProcessCommand, SandboxError, WORKSPACE,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    sync::{mpsc, watch},
    time::sleep,
};

use super::{BACKEND, Place};

/// Messages waiting for a consumer of input or output.
const QUEUE: usize = 16;

pub(super) fn start(place: &Place, request: &ExecRequest) -> Result<Process, SandboxError> {
    checked(request)?;
    let mut child = spawn(place, request)?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (stdin, input) = mpsc::channel(QUEUE);
    let (tell, output) = mpsc::channel(QUEUE);
    let (control, commands) = Control::channel();
    if let Some(pipe) = child.stdin.take() {
        tokio::spawn(feed(pipe, input));
    }
    tokio::spawn(steer(group.0, commands));
    let watched = Watched {
        over: place.over.subscribe(),
        timeout: request.timeout,
        max_output: request.max_output.unwrap_or(u64::MAX),
    };
    tokio::spawn(watched.until_the_end(child, group, tell));
    Ok(Process { stdin, output, control })
}

fn checked(request: &ExecRequest) -> Result<(), SandboxError> {
    let invalid = |why: &str| Err(SandboxError::Invalid(why.to_owned()));
    if request.pty.is_some() {
        return Err(SandboxError::Incapable {
            backend: BACKEND,
            what: "give a command a terminal",
        });
    }
    if request.argv.first().is_none_or(String::is_empty) {
        return invalid("a command needs a program");
    }
    if request.timeout == Some(Duration::ZERO) {
        return invalid("a timeout of zero: leave it out for none");
    }
    if request.max_output == Some(0) {
        return invalid("an output limit of zero: leave it out for none");
    }
    match &request.user {
        Some(user) if user != AGENT_USER => Err(SandboxError::Invalid(format!(
            "there is no user '{user}' in a sandbox, only '{AGENT_USER}'"
        ))),
        _ => Ok(()),
    }
}

fn spawn(place: &Place, request: &ExecRequest) -> Result<Child, SandboxError> {
    let argv: Vec<String> = request.argv.iter().map(|word| place.real(word)).collect();
    let cwd = place.real(request.cwd.as_deref().unwrap_or(WORKSPACE));
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", place.dir.join("home"))
        .envs(request.env.iter().map(|(key, value)| (key, place.real(value))))
        .current_dir(cwd)
        .process_group(0)
        .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => SandboxError::NotFound(format!("{}: {e}", argv[0])),
        _ => SandboxError::Inside {
            operation: format!("starting {}", argv[0]),
            cause: e.to_string(),
        },
    })
}

/// A command's process group, ended when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn feed(mut pipe: ChildStdin, mut input: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = input.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn steer(pid: Option<Pid>, mut commands: mpsc::Receiver<ProcessCommand>) {
    while let Some(command) = commands.recv().await {
        if let (ProcessCommand::Signal(number), Some(pid)) = (command, pid)
            && let Ok(signal) = Signal::try_from(number)
        {
            let _ = kill(pid, signal);
        }
    }
}

/// What may end a command before it ends itself.
struct Watched {
    over: watch::Receiver<Option<String>>,
    timeout: Option<Duration>,
    max_output: u64,
}

impl Watched {
    async fn until_the_end(mut self, mut child: Child, group: Group, tell: mpsc::Sender<Output>) {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let left = std::sync::atomic::AtomicU64::new(self.max_output);
        let whole = async {
            let (out, err) = tokio::join!(
                pump(out, &left, &tell, Output::Stdout),
                pump(err, &left, &tell, Output::Stderr)
            );
            if !(out && err) {
                return Exit::OutputLimit;
            }
            match child.wait().await {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, signal) => Exit::Signal(signal.unwrap_or(9)),
                },
                Err(_) => Exit::SandboxGone,
            }
        };
        let time_is_up = async {
            match self.timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let exit = tokio::select! {
            exit = whole => exit,
            () = time_is_up => Exit::TimedOut,
            _ = self.over.wait_for(Option::is_some) => Exit::SandboxGone,
            () = tell.closed() => return,
        };
        drop(group);
        let _ = tell.send(Output::Exited(exit)).await;
    }
}

/// Passes on what a pipe brings. `false` when it brought more than was left.
async fn pump(
    pipe: Option<impl AsyncRead + Unpin>,
    left: &std::sync::atomic::AtomicU64,
    tell: &mpsc::Sender<Output>,
    wrap: fn(Bytes) -> Output,
) -> bool {
    use std::sync::atomic::Ordering::Relaxed;
    let Some(mut pipe) = pipe else { return true };
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let wanted = count as u64;
        // Both pipes run in one task: nothing comes between the two steps.
        let room = left.load(Relaxed);
        left.store(room.saturating_sub(wanted), Relaxed);
        let taken = usize::try_from(room.min(wanted)).unwrap_or(count);
        if taken > 0 && tell.send(wrap(Bytes::copy_from_slice(&buffer[..taken]))).await.is_err() {
            return true;
        }
        if wanted > room {
            return false;
        }
    }
    true
}
