//! JSON-RPC 2.0 over lines, as ACP uses it, with bounds on everything a sandbox sends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use serde_json::{Value, json};
use stockade_ports::{Exit, Output, Process};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    pulse::Pulse,
    text::{self, MiddleOut},
};

/// Longest line an agent may send, in bytes.
const LONGEST_LINE: usize = 32 << 20;
/// Most bytes of the agent's standard error, and of lines that are no messages, that are kept.
const TAIL: usize = 8 << 10;
/// Bytes handed to the sandbox at a time.
const CHUNK: usize = 32 << 10;
/// The method does not exist (JSON-RPC 2.0, section 5.1).
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are wrong.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// The request was understood and not done.
pub(super) const NOT_DONE: i64 = -32603;

/// What an agent sends of its own accord.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Something it wants answered.
    Request { id: Value, method: String, params: Value },
    /// Something it says.
    Notification { method: String, params: Value },
    /// Nothing more will come.
    Ended(Ending),
}

/// How an agent's process ended.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// As the sandbox says.
    pub(super) exit: Exit,
    /// What was wrong with its output, if that ended it.
    pub(super) complaint: Option<String>,
}

/// An error an agent answers with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Value,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, RpcError>>>>>;

/// The way to the agent. Dropping every clone closes its standard input.
#[derive(Clone)]
pub(super) struct Peer {
    out: mpsc::Sender<String>,
    pending: Pending,
    next: Arc<AtomicU64>,
}

/// The agent's side of the line.
pub(super) struct Line {
    /// What it sends of its own accord, in order.
    pub(super) incoming: mpsc::Receiver<Incoming>,
    /// The end of what it printed outside the protocol.
    pub(super) tail: Tail,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// The end of what an agent printed outside the protocol. Bounded.
#[derive(Clone)]
pub(super) struct Tail(Arc<Mutex<MiddleOut>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    /// The text, without what looks like a credential.
    pub(super) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::replace(&mut *kept, MiddleOut::new(TAIL)).into_text();
        kept.push(text.as_bytes());
        text::redact(text.trim())
    }
}

/// Speaks with a process.
pub(super) fn connect(process: Process, pulse: Pulse) -> (Peer, Line) {
    let (out, lines) = mpsc::channel(64);
    let (forward, incoming) = mpsc::channel(256);
    let pending: Pending = Arc::default();
    let tail = Tail(Arc::new(Mutex::new(MiddleOut::new(TAIL))));
    let Process { stdin, output, .. } = process;
    let reader = Reader {
        output,
        forward,
        pending: Arc::clone(&pending),
        tail: tail.clone(),
        pulse,
        buffer: Vec::new(),
        scanned: 0,
    };
    let tasks = [
        AbortOnDropHandle::new(tokio::spawn(reader.run())),
        AbortOnDropHandle::new(tokio::spawn(write(lines, stdin))),
    ];
    let peer = Peer {
        out,
        pending,
        next: Arc::new(AtomicU64::new(1)),
    };
    let line = Line {
        incoming,
        tail,
        _tasks: tasks,
    };
    (peer, line)
}

async fn write(mut lines: mpsc::Receiver<String>, stdin: mpsc::Sender<Bytes>) {
    while let Some(line) = lines.recv().await {
        let mut bytes = Bytes::from(line);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK));
            if stdin.send(piece).await.is_err() {
                return;
            }
        }
    }
}

impl Peer {
    async fn send(&self, message: &Value) {
        // An agent that no longer reads has ended or is about to; the reader tells.
        let _ = self.out.send(format!("{message}\n")).await;
    }

    /// Asks and waits. When the agent ends first, this never returns: the line tells.
    pub(super) async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answer);
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    /// Says something.
    pub(super) async fn notify(&self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
            .await;
    }

    /// Answers a request.
    pub(super) async fn answer(&self, id: &Value, result: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
            .await;
    }

    /// Answers a request with an error.
    pub(super) async fn refuse(&self, id: &Value, code: i64, message: &str) {
        let error = json!({ "code": code, "message": message });
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
    }
}

struct Reader {
    output: mpsc::Receiver<Output>,
    forward: mpsc::Sender<Incoming>,
    pending: Pending,
    tail: Tail,
    pulse: Pulse,
    buffer: Vec<u8>,
    scanned: usize,
}

impl Reader {
    async fn run(mut self) {
        let ending = loop {
            match self.output.recv().await {
                Some(Output::Stdout(bytes)) => {
                    self.pulse.beat();
                    self.buffer.extend_from_slice(&bytes);
                    self.lines().await;
                    if self.buffer.len() > LONGEST_LINE {
                        let complaint = format!("it sent a line longer than {LONGEST_LINE} bytes");
                        break (Exit::SandboxGone, Some(complaint));
                    }
                }
                Some(Output::Stderr(bytes)) => {
                    self.pulse.beat();
                    self.tail.push(&bytes);
                }
                Some(Output::Exited(exit)) => break (exit, None),
                None => break (Exit::SandboxGone, None),
            }
        };
        let (exit, complaint) = ending;
        let _ = self.forward.send(Incoming::Ended(Ending { exit, complaint })).await;
    }

    async fn lines(&mut self) {
        while let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=self.scanned + at).collect();
            self.scanned = 0;
            self.line(&line).await;
        }
        self.scanned = self.buffer.len();
    }

    /// One line: a message, or something an agent printed where it should not.
    async fn line(&self, line: &[u8]) {
        let message: Value = match serde_json::from_slice(line) {
            Ok(message @ Value::Object(_)) => message,
            _ => {
                self.tail.push(line);
                return;
            }
        };
        let id = message.get("id").filter(|id| !id.is_null()).cloned();
        let params = message.get("params").cloned().unwrap_or(Value::Null);
        let incoming = match (message["method"].as_str(), id) {
            (Some(method), Some(id)) => Incoming::Request {
                id,
                method: method.to_owned(),
                params,
            },
            (Some(method), None) => Incoming::Notification {
                method: method.to_owned(),
                params,
            },
            (None, Some(id)) => return self.answered(&id, &message),
            (None, None) => return self.tail.push(line),
        };
        // Whoever no longer listens has no use for the rest either.
        let _ = self.forward.send(incoming).await;
    }

    fn answered(&self, id: &Value, message: &Value) {
        let waiting = id
            .as_u64()
            .and_then(|id| self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        let Some(waiting) = waiting else { return };
        let answer = match message.get("error").filter(|error| !error.is_null()) {
            None => Ok(message.get("result").cloned().unwrap_or(Value::Null)),
            Some(error) => Err(RpcError {
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or("no message").to_owned(),
                data: error.get("data").cloned().unwrap_or(Value::Null),
            }),
        };
        let _ = waiting.send(answer);
    }
}
