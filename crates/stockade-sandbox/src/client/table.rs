//! What the Guest's frames do to the requests that wait for it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use stockade_guest_proto::{ExitStatus, Frame, FrameKind, FromGuest, PROTOCOL_VERSION};
use stockade_ports::sandbox::{Exit, Output, SandboxError};
use tokio::sync::{oneshot, watch};

pub(super) use super::pending::Pending;

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
        removed.as_ref().map(Pending::forget).is_some()
    }

    /// Notes that we granted the Guest more of a command's output or of a transfer; `false` if it
    /// has ended.
    pub(super) fn grant(&self, id: u32, credit: u64) -> bool {
        let mut state = self.lock();
        let granted = match state.pending.get_mut(&id) {
            Some(Pending::Exec(exec)) => &mut exec.granted,
            Some(Pending::Stream(stream)) => &mut stream.granted,
            _ => return false,
        };
        *granted = granted.saturating_add(credit);
        true
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
        for (_, pending) in pending {
            pending.gone(reason);
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
                let (len, bytes) = (payload.len(), Bytes::from(payload));
                let output = match kind {
                    FrameKind::Stdout => Output::Stdout(bytes),
                    _ => Output::Stderr(bytes),
                };
                exec.output(len, output)?;
            }
            (FrameKind::File, Some(Pending::Call(call))) => call.content(&payload)?,
            (FrameKind::File, Some(Pending::Stream(stream))) => stream.bytes(payload.into())?,
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
                if let Some(pending) = self.pending.get_mut(&id) {
                    pending.started();
                }
            }
            FromGuest::StdinCredit { id, bytes } => {
                if let Some(Pending::Exec(exec)) = self.pending.get_mut(&id) {
                    exec.repaid(bytes);
                }
            }
            FromGuest::Exited { id, status } => self.exited(id, status),
            FromGuest::Entries { id, entries, truncated } => {
                if let Some(Pending::Call(call)) = self.pending.get_mut(&id) {
                    call.entries(entries, truncated)?;
                }
            }
            FromGuest::Changed { id, changes } => {
                if let Some(Pending::Stream(stream)) = self.pending.get_mut(&id) {
                    stream.changes(changes)?;
                }
            }
            FromGuest::Done { id } => {
                if let Some(other) = self.pending.remove(&id).and_then(Pending::done) {
                    self.pending.insert(id, other);
                }
            }
            FromGuest::Probed { id, observed } => match self.pending.remove(&id) {
                Some(Pending::Probe { done }) => drop(done.send(Ok(*observed))),
                Some(other) => drop(self.pending.insert(id, other)),
                None => {}
            },
            FromGuest::Room { id, full } => match self.pending.remove(&id) {
                Some(Pending::Room { done }) => drop(done.send(full)),
                Some(other) => drop(self.pending.insert(id, other)),
                None => {}
            },
            FromGuest::Failed { id, kind, message } => {
                if let Some(pending) = self.pending.remove(&id) {
                    pending.failed(kind, &message);
                }
            }
            FromGuest::Pong { .. } | FromGuest::Unknown => {}
        }
        Ok(())
    }

    fn exited(&mut self, id: u32, status: ExitStatus) {
        if !matches!(self.pending.get(&id), Some(Pending::Exec(_))) {
            return;
        }
        if let Some(Pending::Exec(exec)) = self.pending.remove(&id) {
            exec.end(match status {
                ExitStatus::Code(code) => Exit::Code(code),
                ExitStatus::Signal(signal) => Exit::Signal(signal),
                ExitStatus::TimedOut => Exit::TimedOut,
                ExitStatus::OutputLimit => Exit::OutputLimit,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stockade_guest_proto::{INITIAL_CREDIT, WATCH_CREDIT, data_cost};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::client::pending::{CallEntry, ExecEntry, Item, StreamEntry};

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
        let (call, _) = CallEntry::new(String::new(), 0, 0);
        assert!(table.insert(2, Pending::Call(call)).is_err());
        assert_eq!(table.ended().borrow().as_deref(), Some("power cut"));
    }

    fn said(table: &Table, message: &str) -> Result<(), String> {
        table.accept(frame(FrameKind::Control, 0, message.as_bytes()))
    }

    #[test]
    fn more_than_was_asked_for_is_a_breach() {
        let (table, ..) = table();
        let entry = r#"{"path":"/a","kind":"file","size":1,"mode":420,"modified_ms":0}"#;
        let (call, mut answer) = CallEntry::new("listing".to_owned(), 0, 2);
        table.insert(2, Pending::Call(call)).expect("open");
        said(
            &table,
            &format!(r#"{{"type":"entries","id":2,"entries":[{entry},{entry}]}}"#),
        )
        .expect("two");
        said(&table, &format!(r#"{{"type":"entries","id":2,"entries":[{entry}]}}"#)).expect_err("three");
        said(&table, r#"{"type":"done","id":2}"#).expect("ends");
        let reply = answer.try_recv().expect("told").expect("fine");
        assert_eq!(reply.entries.len(), 2);

        let (call, _answer) = CallEntry::new("listing".to_owned(), 0, 2);
        table.insert(3, Pending::Call(call)).expect("open");
        let long = entry.replace("/a", &"x".repeat(20_000));
        said(&table, &format!(r#"{{"type":"entries","id":3,"entries":[{long}]}}"#)).expect_err("no path is so long");

        let (call, _answer) = CallEntry::new("reading".to_owned(), 3, 0);
        table.insert(4, Pending::Call(call)).expect("open");
        table.accept(frame(FrameKind::File, 4, b"123")).expect("fits");
        table
            .accept(frame(FrameKind::File, 4, b"4"))
            .expect_err("over the limit");
    }

    #[test]
    fn a_stream_beyond_its_credit_is_a_breach() {
        let (table, ..) = table();
        let (stream, mut started, mut items) = StreamEntry::new("x".to_owned(), 1 << 30, INITIAL_CREDIT);
        table.insert(2, Pending::Stream(stream)).expect("open");
        said(&table, r#"{"type":"started","id":2}"#).expect("starts");
        assert!(matches!(started.try_recv(), Ok(Ok(()))));
        let chunk = vec![0; 60_000];
        let mut sent = 0;
        while sent + data_cost(chunk.len()) <= INITIAL_CREDIT {
            table.accept(frame(FrameKind::File, 2, &chunk)).expect("granted");
            sent += data_cost(chunk.len());
        }
        table
            .accept(frame(FrameKind::File, 2, &chunk))
            .expect_err("not granted");
        assert!(matches!(items.try_recv(), Ok(Item::Bytes(_))));

        let (stream, _started, _items) = StreamEntry::new("x".to_owned(), 0, WATCH_CREDIT);
        table.insert(3, Pending::Stream(stream)).expect("open");
        let change = r#"{"type":"changed","id":3,"changes":[{"path":"/a","what":"created"}]}"#;
        for _ in 0..WATCH_CREDIT {
            said(&table, change).expect("granted");
        }
        said(&table, change).expect_err("not granted");
    }
}
