//! The requests that wait for the Guest.

use std::sync::Arc;

use bytes::Bytes;
use stockade_guest_proto::{
    ChangeKind, FailureKind, FileChange, FileEntry, FileKind, INITIAL_CREDIT, Observed, data_cost,
};
use stockade_ports::sandbox::{Change, Entry, EntryKind, Exit, Output, SandboxError};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Longest path and link text taken from the Guest: PATH_MAX with every byte replaced by U+FFFD.
const MAX_PATH: usize = 3 * 4096;

/// One request that has no answer yet.
pub(super) enum Pending {
    Exec(ExecEntry),
    Call(CallEntry),
    Stream(StreamEntry),
    Probe {
        done: oneshot::Sender<Result<Observed, SandboxError>>,
    },
    Confine {
        done: oneshot::Sender<Result<(), SandboxError>>,
    },
    Room {
        done: oneshot::Sender<bool>,
    },
}

impl Pending {
    /// The request will not be answered any more.
    pub(super) fn gone(self, reason: &str) {
        let gone = || SandboxError::Gone(reason.to_owned());
        match self {
            Self::Exec(mut exec) => {
                if let Some(started) = exec.started.take() {
                    let _ = started.send(Err(gone()));
                }
                exec.end(Exit::SandboxGone);
            }
            Self::Call(call) => drop(call.done.send(Err(gone()))),
            Self::Stream(stream) => stream.end(Err(gone())),
            Self::Probe { done } => drop(done.send(Err(gone()))),
            Self::Confine { done } => drop(done.send(Err(gone()))),
            Self::Room { .. } => {}
        }
    }

    /// The Guest could not do it.
    pub(super) fn failed(self, kind: FailureKind, message: &str) {
        let message = printable(message);
        match self {
            Self::Exec(mut exec) => {
                let operation = format!("starting {}", exec.program);
                if let Some(started) = exec.started.take() {
                    let _ = started.send(Err(error(kind, operation, message, 0)));
                } else {
                    exec.end(Exit::Signal(libc::SIGKILL));
                }
            }
            Self::Call(call) => {
                let failure = error(kind, call.operation, message, call.limit);
                drop(call.done.send(Err(failure)));
            }
            Self::Stream(stream) => {
                let failure = error(kind, stream.operation.clone(), message, stream.limit);
                stream.end(Err(failure));
            }
            Self::Probe { done } => drop(done.send(Err(error(kind, "measuring".to_owned(), message, 0)))),
            Self::Confine { done } => {
                drop(done.send(Err(error(kind, "confining the Guest".to_owned(), message, 0))));
            }
            Self::Room { .. } => {}
        }
    }

    /// The Guest has done it; a command does not end that way and is given back.
    pub(super) fn done(self) -> Option<Self> {
        match self {
            Self::Call(call) => drop(call.done.send(Ok(call.reply))),
            Self::Stream(stream) => stream.end(Ok(())),
            Self::Confine { done } => drop(done.send(Ok(()))),
            other => return Some(other),
        }
        None
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self) {
        if let Self::Exec(exec) = self {
            exec.input.close();
        }
    }

    /// The command runs, or the transfer has begun.
    pub(super) fn started(&mut self) {
        let started = match self {
            Self::Exec(exec) => exec.started.take(),
            Self::Stream(stream) => stream.started.take(),
            _ => None,
        };
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }
    }
}

/// A command.
pub(super) struct ExecEntry {
    program: String,
    started: Option<oneshot::Sender<Result<(), SandboxError>>>,
    output: mpsc::UnboundedSender<Output>,
    /// Output credit the Guest still has.
    pub(super) granted: u64,
    /// Input credit we have used and not got back.
    pub(super) owed: u64,
    pub(super) input: Arc<Semaphore>,
}

impl ExecEntry {
    pub(super) fn new(
        program: String,
        started: oneshot::Sender<Result<(), SandboxError>>,
        output: mpsc::UnboundedSender<Output>,
        input: Arc<Semaphore>,
    ) -> Self {
        Self {
            program,
            started: Some(started),
            output,
            granted: INITIAL_CREDIT,
            owed: 0,
            input,
        }
    }

    /// Output for whoever listens; a consumer that is gone is fine.
    pub(super) fn output(&mut self, len: usize, output: Output) -> Result<(), String> {
        self.granted = self
            .granted
            .checked_sub(data_cost(len))
            .ok_or("more output than granted")?;
        let _ = self.output.send(output);
        Ok(())
    }

    /// Takes input credit back: never more than is owed, whatever the Guest says.
    pub(super) fn repaid(&mut self, bytes: u64) {
        let bytes = bytes.min(self.owed);
        self.owed -= bytes;
        self.input.add_permits(usize::try_from(bytes).unwrap_or(0));
    }

    pub(super) fn end(mut self, exit: Exit) {
        if let Some(started) = self.started.take() {
            let _ = started.send(Ok(()));
        }
        self.input.close();
        let _ = self.output.send(Output::Exited(exit));
    }
}

/// A request with one answer.
pub(super) struct CallEntry {
    operation: String,
    /// Most bytes of content, and what an error about the size says.
    limit: u64,
    /// Most entries.
    most: u32,
    reply: Reply,
    done: oneshot::Sender<Result<Reply, SandboxError>>,
}

/// What came before the answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) content: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    pub(super) truncated: bool,
}

impl CallEntry {
    pub(super) fn new(
        operation: String,
        limit: u64,
        most: u32,
    ) -> (Self, oneshot::Receiver<Result<Reply, SandboxError>>) {
        let (done, result) = oneshot::channel();
        let reply = Reply::default();
        let entry = Self {
            operation,
            limit,
            most,
            reply,
            done,
        };
        (entry, result)
    }

    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<(), String> {
        if (self.reply.content.len() + bytes.len()) as u64 > self.limit {
            return Err("a longer file than asked for".to_owned());
        }
        self.reply.content.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn entries(&mut self, entries: Vec<FileEntry>, truncated: bool) -> Result<(), String> {
        let room = usize::try_from(self.most).unwrap_or(usize::MAX);
        if self.reply.entries.len() + entries.len() > room {
            return Err("more entries than asked for".to_owned());
        }
        for told in entries {
            self.reply.entries.push(entry(told)?);
        }
        self.reply.truncated |= truncated;
        Ok(())
    }
}

/// A file or changes on their way.
pub(super) struct StreamEntry {
    operation: String,
    limit: u64,
    /// Bytes of the file that may still come.
    left: u64,
    /// Credit the Guest still has.
    pub(super) granted: u64,
    started: Option<oneshot::Sender<Result<(), SandboxError>>>,
    items: mpsc::UnboundedSender<Item>,
}

/// A piece of a stream.
#[derive(Debug)]
pub(super) enum Item {
    Bytes(Bytes),
    Change(Change),
    /// The last one: whole, or why not.
    End(Result<(), SandboxError>),
}

impl StreamEntry {
    #[allow(clippy::type_complexity)]
    pub(super) fn new(
        operation: String,
        limit: u64,
        granted: u64,
    ) -> (
        Self,
        oneshot::Receiver<Result<(), SandboxError>>,
        mpsc::UnboundedReceiver<Item>,
    ) {
        let (started, has_started) = oneshot::channel();
        let (items, coming) = mpsc::unbounded_channel();
        let entry = Self {
            operation,
            limit,
            left: limit,
            granted,
            started: Some(started),
            items,
        };
        (entry, has_started, coming)
    }

    pub(super) fn bytes(&mut self, bytes: Bytes) -> Result<(), String> {
        let len = bytes.len();
        self.left = self
            .left
            .checked_sub(len as u64)
            .ok_or("a longer file than asked for")?;
        self.granted = self
            .granted
            .checked_sub(data_cost(len))
            .ok_or("more of a file than granted")?;
        let _ = self.items.send(Item::Bytes(bytes));
        Ok(())
    }

    pub(super) fn changes(&mut self, changes: Vec<FileChange>) -> Result<(), String> {
        for FileChange { path, what } in changes {
            self.granted = self.granted.checked_sub(1).ok_or("more changes than granted")?;
            let path = bounded(path)?;
            let what = match what {
                ChangeKind::Created => "created",
                ChangeKind::Modified => "modified",
                ChangeKind::Removed => "removed",
                ChangeKind::Moved => "moved",
                ChangeKind::Lost => "lost",
            };
            let _ = self.items.send(Item::Change(Change { path, what }));
        }
        Ok(())
    }

    fn end(mut self, result: Result<(), SandboxError>) {
        match (self.started.take(), result) {
            // It never began: whoever waits for that hears of it.
            (Some(started), Err(e)) => drop(started.send(Err(e))),
            (Some(started), Ok(())) => {
                let _ = started.send(Ok(()));
                let _ = self.items.send(Item::End(Ok(())));
            }
            (None, result) => drop(self.items.send(Item::End(result))),
        }
    }
}

fn bounded(text: String) -> Result<String, String> {
    if text.len() <= MAX_PATH {
        Ok(text)
    } else {
        Err("a path longer than there can be".to_owned())
    }
}

fn entry(told: FileEntry) -> Result<Entry, String> {
    Ok(Entry {
        path: bounded(told.path)?,
        kind: match told.kind {
            FileKind::File => EntryKind::File,
            FileKind::Directory => EntryKind::Directory,
            FileKind::Link => EntryKind::Link,
            FileKind::Other => EntryKind::Other,
        },
        size: told.size,
        mode: told.mode & 0o7777,
        modified_ms: told.modified_ms,
        target: told.target.map(bounded).transpose()?,
    })
}

fn error(kind: FailureKind, operation: String, message: String, limit: u64) -> SandboxError {
    match kind {
        FailureKind::Invalid => SandboxError::Invalid(format!("{operation}: {message}")),
        FailureKind::NotFound => SandboxError::NotFound(format!("{operation}: {message}")),
        FailureKind::DiskFull => SandboxError::DiskFull(message),
        FailureKind::TooLarge => SandboxError::TooLarge { what: message, limit },
        FailureKind::Other => SandboxError::Inside {
            operation,
            cause: message,
        },
    }
}

/// The Guest's words without control characters, and not too many of them.
fn printable(message: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    message.chars().take(500).map(safe).collect()
}
