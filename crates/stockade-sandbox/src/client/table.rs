//! The requests that wait for the Guest, and what its frames do to them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use stockade_guest_proto::{
    ExitStatus, FailureKind, Frame, FrameKind, FromGuest, INITIAL_CREDIT, PROTOCOL_VERSION, data_cost,
};
use stockade_ports::sandbox::{Exit, Output, SandboxError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// One request that has no answer yet.
pub(super) enum Pending {
    Exec(ExecEntry),
    Read {
        path: String,
        limit: u64,
        content: Vec<u8>,
        done: oneshot::Sender<Result<Bytes, SandboxError>>,
    },
    Write {
        path: String,
        done: oneshot::Sender<Result<(), SandboxError>>,
    },
}

/// A command.
pub(super) struct ExecEntry {
    program: String,
    started: Option<oneshot::Sender<Result<(), SandboxError>>>,
    output: mpsc::UnboundedSender<Output>,
    /// Output credit the Guest still has.
    granted: u64,
    /// Input credit we have used and not got back.
    owed: u64,
    input: Arc<Semaphore>,
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

    fn end(self, exit: Exit) {
        self.input.close();
        // Nobody listening any more is fine: the consumer dropped the command.
        let _ = self.output.send(Output::Exited(exit));
    }
}

/// All requests of one sandbox.
pub(super) struct Table {
    state: Mutex<State>,
    ended: watch::Sender<Option<String>>,
}

struct State {
    pending: HashMap<u32, Pending>,
    hello: Option<oneshot::Sender<()>>,
    gone: Option<String>,
}

impl Table {
    pub(super) fn new(hello: oneshot::Sender<()>) -> Self {
        Self {
            state: Mutex::new(State {
                pending: HashMap::new(),
                hello: Some(hello),
                gone: None,
            }),
            ended: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it; the data is consistent after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.subscribe()
    }

    pub(super) fn insert(&self, id: u32, pending: Pending) -> Result<(), SandboxError> {
        let mut state = self.lock();
        if let Some(reason) = &state.gone {
            return Err(SandboxError::Gone(reason.clone()));
        }
        state.pending.insert(id, pending);
        Ok(())
    }

    pub(super) fn knows(&self, id: u32) -> bool {
        self.lock().pending.contains_key(&id)
    }

    pub(super) fn remove(&self, id: u32) -> bool {
        let removed = self.lock().pending.remove(&id);
        if let Some(Pending::Exec(exec)) = &removed {
            exec.input.close();
        }
        removed.is_some()
    }

    /// Notes that we granted the Guest more output of a command; `false` if it has ended.
    pub(super) fn grant(&self, id: u32, bytes: u64) -> bool {
        match self.lock().pending.get_mut(&id) {
            Some(Pending::Exec(exec)) => {
                exec.granted = exec.granted.saturating_add(bytes);
                true
            }
            _ => false,
        }
    }

    /// Notes that we used input credit.
    pub(super) fn owe(&self, id: u32, bytes: u64) {
        if let Some(Pending::Exec(exec)) = self.lock().pending.get_mut(&id) {
            exec.owed = exec.owed.saturating_add(bytes);
        }
    }

    /// Ends every request: the sandbox is gone.
    pub(super) fn close(&self, reason: &str) {
        let pending = {
            let mut state = self.lock();
            state.gone = Some(reason.to_owned());
            state.hello = None;
            std::mem::take(&mut state.pending)
        };
        let gone = || SandboxError::Gone(reason.to_owned());
        for (_, pending) in pending {
            match pending {
                Pending::Exec(mut exec) => {
                    if let Some(started) = exec.started.take() {
                        let _ = started.send(Err(gone()));
                    }
                    exec.end(Exit::SandboxGone);
                }
                Pending::Read { done, .. } => drop(done.send(Err(gone()))),
                Pending::Write { done, .. } => drop(done.send(Err(gone()))),
            }
        }
        self.ended.send_replace(Some(reason.to_owned()));
    }

    /// Takes one frame from the Guest. An error is a breach of the protocol.
    pub(super) fn accept(&self, frame: Frame) -> Result<(), String> {
        let mut state = self.lock();
        match frame.kind {
            FrameKind::Control => {
                let message =
                    serde_json::from_slice(&frame.payload).map_err(|e| format!("a message is not understood: {e}"))?;
                state.message(message)
            }
            FrameKind::Stdin => Err("it sent input".to_owned()),
            kind => state.data(kind, frame.stream, frame.payload),
        }
    }
}

impl State {
    fn data(&mut self, kind: FrameKind, id: u32, payload: Vec<u8>) -> Result<(), String> {
        match (kind, self.pending.get_mut(&id)) {
            (FrameKind::Stdout | FrameKind::Stderr, Some(Pending::Exec(exec))) => {
                exec.granted = exec
                    .granted
                    .checked_sub(data_cost(payload.len()))
                    .ok_or("more output than granted")?;
                let bytes = Bytes::from(payload);
                let _ = exec.output.send(match kind {
                    FrameKind::Stdout => Output::Stdout(bytes),
                    _ => Output::Stderr(bytes),
                });
            }
            (FrameKind::File, Some(Pending::Read { limit, content, .. })) => {
                if (content.len() + payload.len()) as u64 > *limit {
                    return Err("a longer file than asked for".to_owned());
                }
                content.extend_from_slice(&payload);
            }
            // A request that was given up, or nonsense that changes nothing.
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, message: FromGuest) -> Result<(), String> {
        match message {
            FromGuest::Hello { version } => {
                if version != PROTOCOL_VERSION {
                    return Err(format!("it speaks version {version}"));
                }
                if let Some(hello) = self.hello.take() {
                    let _ = hello.send(());
                }
            }
            FromGuest::Started { id } => {
                if let Some(Pending::Exec(exec)) = self.pending.get_mut(&id)
                    && let Some(started) = exec.started.take()
                {
                    let _ = started.send(Ok(()));
                }
            }
            FromGuest::StdinCredit { id, bytes } => {
                if let Some(Pending::Exec(exec)) = self.pending.get_mut(&id) {
                    // Never more than is owed, whatever the Guest says.
                    let bytes = bytes.min(exec.owed);
                    exec.owed -= bytes;
                    exec.input.add_permits(usize::try_from(bytes).unwrap_or(0));
                }
            }
            FromGuest::Exited { id, status } => self.exited(id, status),
            FromGuest::Done { id } => match self.pending.remove(&id) {
                Some(Pending::Read { content, done, .. }) => {
                    let _ = done.send(Ok(content.into()));
                }
                Some(Pending::Write { done, .. }) => drop(done.send(Ok(()))),
                Some(exec) => drop(self.pending.insert(id, exec)),
                None => {}
            },
            FromGuest::Failed { id, kind, message } => self.failed(id, kind, message),
            FromGuest::Pong { .. } | FromGuest::Unknown => {}
        }
        Ok(())
    }

    fn exited(&mut self, id: u32, status: ExitStatus) {
        if !matches!(self.pending.get(&id), Some(Pending::Exec(_))) {
            return;
        }
        if let Some(Pending::Exec(mut exec)) = self.pending.remove(&id) {
            if let Some(started) = exec.started.take() {
                let _ = started.send(Ok(()));
            }
            exec.end(match status {
                ExitStatus::Code(code) => Exit::Code(code),
                ExitStatus::Signal(signal) => Exit::Signal(signal),
                ExitStatus::TimedOut => Exit::TimedOut,
            });
        }
    }

    fn failed(&mut self, id: u32, kind: FailureKind, message: String) {
        let message = printable(&message);
        match self.pending.remove(&id) {
            Some(Pending::Exec(mut exec)) => {
                let operation = format!("starting {}", exec.program);
                if let Some(started) = exec.started.take() {
                    let _ = started.send(Err(error(kind, operation, message, 0)));
                } else {
                    exec.end(Exit::Signal(libc::SIGKILL));
                }
            }
            Some(Pending::Read { path, limit, done, .. }) => {
                let operation = format!("reading {path}");
                drop(done.send(Err(error(kind, operation, message, limit))));
            }
            Some(Pending::Write { path, done }) => {
                let operation = format!("writing {path}");
                drop(done.send(Err(error(kind, operation, message, 0))));
            }
            None => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (
        Table,
        mpsc::UnboundedReceiver<Output>,
        oneshot::Receiver<Result<(), SandboxError>>,
    ) {
        let (hello, _) = oneshot::channel();
        let table = Table::new(hello);
        let (started, start) = oneshot::channel();
        let (output, out) = mpsc::unbounded_channel();
        let input = Arc::new(Semaphore::new(0));
        let entry = ExecEntry::new("x".to_owned(), started, output, input);
        table.insert(1, Pending::Exec(entry)).expect("open");
        (table, out, start)
    }

    fn frame(kind: FrameKind, stream: u32, payload: &[u8]) -> Frame {
        Frame {
            kind,
            stream,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn output_beyond_the_credit_is_a_breach() {
        let (table, mut out, _start) = table();
        let chunk = vec![0; 60_000];
        let mut sent = 0;
        while sent + data_cost(chunk.len()) <= INITIAL_CREDIT {
            table.accept(frame(FrameKind::Stdout, 1, &chunk)).expect("granted");
            sent += data_cost(chunk.len());
        }
        assert!(out.try_recv().is_ok(), "what was granted arrives");
        table
            .accept(frame(FrameKind::Stdout, 1, &chunk))
            .expect_err("not granted");
    }

    #[test]
    fn a_hostile_guest_cannot_crash_or_confuse_the_host() {
        let (table, mut out, mut start) = table();
        for harmless in [
            r#"{"type":"pong","id":9}"#,
            r#"{"type":"done","id":1}"#,
            r#"{"type":"done","id":77}"#,
            r#"{"type":"exited","id":77,"status":{"code":1}}"#,
            r#"{"type":"stdin_credit","id":1,"bytes":18446744073709551615}"#,
            r#"{"type":"never_heard_of"}"#,
            r#"{"type":"failed","id":5,"kind":"strange","message":"x"}"#,
        ] {
            let frame = frame(FrameKind::Control, 0, harmless.as_bytes());
            table.accept(frame).expect(harmless);
        }
        assert!(table.knows(1) && start.try_recv().is_err() && out.try_recv().is_err());
        for breach in ["", "{", "[]", r#"{"type":"exited","id":1,"status":{"code":1e99}}"#] {
            let frame = frame(FrameKind::Control, 0, breach.as_bytes());
            table.accept(frame).expect_err(breach);
        }
        table
            .accept(frame(FrameKind::Stdin, 1, b"x"))
            .expect_err("input from the Guest");
    }

    #[test]
    fn the_end_reaches_everybody_and_new_requests_are_refused() {
        let (table, mut out, mut start) = table();
        table.close("power cut");
        assert!(matches!(start.try_recv(), Ok(Err(SandboxError::Gone(_)))));
        assert_eq!(out.try_recv(), Ok(Output::Exited(Exit::SandboxGone)));
        let (done, _) = oneshot::channel();
        let path = String::new();
        assert!(table.insert(2, Pending::Write { path, done }).is_err());
        assert_eq!(table.ended().borrow().as_deref(), Some("power cut"));
    }
}
