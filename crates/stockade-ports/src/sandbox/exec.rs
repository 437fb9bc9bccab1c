//! Commands inside a sandbox.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

/// A command to start inside.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments; no shell is involved unless it is named here.
    pub argv: Vec<String>,
    /// The whole environment apart from `PATH`, `HOME`, `USER`, `LANG` and `TERM` defaults and
    /// what the image asks for.
    pub env: BTreeMap<String, String>,
    /// Working directory; [`super::WORKSPACE`] when absent.
    pub cwd: Option<String>,
    /// User to run as. There is one inside, [`super::AGENT_USER`]; any other is refused.
    pub user: Option<String>,
    /// Ends the whole tree when it passes. Zero is refused.
    pub timeout: Option<Duration>,
    /// Most bytes of output; the whole tree is ended at the first byte over it. Zero is refused.
    pub max_output: Option<u64>,
    /// Keep stdin open for [`Process::stdin`]; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Run on a terminal of this size. Output then comes as [`Output::Stdout`] alone, and
    /// stdin is open.
    pub pty: Option<PtySize>,
}

/// Size of a terminal in characters. Zero is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A started command. Dropping it kills the command's tree.
#[derive(Debug)]
pub struct Process {
    /// Bytes for standard input; dropping the sender closes it.
    pub stdin: mpsc::Sender<Bytes>,
    /// Output in the order it was written, ending with exactly one [`Output::Exited`].
    pub output: mpsc::Receiver<Output>,
    /// Steers it while it runs.
    pub control: Control,
}

/// Steers a running command. Cheap to clone; does not keep the command alive.
#[derive(Debug, Clone)]
pub struct Control(mpsc::Sender<ProcessCommand>);

impl Control {
    /// A control and the backend's end of it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<ProcessCommand>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Sends a signal to the command's own process, by number (signal(7)). What it started is
    /// not signalled. A command that has ended ignores it.
    pub async fn signal(&self, number: i32) {
        let _ = self.0.send(ProcessCommand::Signal(number)).await;
    }

    /// Gives its terminal another size. Ignored without a terminal.
    pub async fn resize(&self, size: PtySize) {
        let _ = self.0.send(ProcessCommand::Resize(size)).await;
    }
}

/// What a [`Control`] asks of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessCommand {
    /// Send this signal.
    Signal(i32),
    /// Resize the terminal.
    Resize(PtySize),
}

/// A piece of what a command printed, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The command ended.
    Exited(Exit),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exit code.
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
    /// Its time was up and its tree was killed.
    TimedOut,
    /// It printed more than its limit and its tree was killed.
    OutputLimit,
    /// The sandbox ended under it.
    SandboxGone,
}
