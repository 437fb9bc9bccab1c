//! The host's side of the conversation with one Guest.
//!
//! Two tasks per sandbox (one reads, one writes) and two per command. The reader never
//! waits for a consumer, so one slow command holds up nobody: output is bounded by the
//! credit we grant, and a Guest that sends more than it was granted is not a Guest any more.

mod exec;
mod table;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use stockade_guest_proto::{Decoder, FrameKind, MAX_CONTROL, PROTOCOL_VERSION, ToGuest, frame};
use stockade_ports::sandbox::{ExecRequest, Process, SandboxError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
};

use self::table::{Pending, Table};

const FILE_CHUNK: usize = 32 * 1024;
/// Data frames on their way to the pipe.
const DATA_QUEUE: usize = 16;

/// A conversation.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    table: Table,
    next: AtomicU32,
    control: mpsc::UnboundedSender<Vec<u8>>,
    data: mpsc::Sender<Vec<u8>>,
}

impl Client {
    /// Starts talking over the two pipes. The returned receiver resolves when the Guest
    /// has said hello.
    ///
    /// `over` is called once when the conversation ends, with the Guest's fault if there
    /// was one; it returns the reason the pending requests fail with.
    pub(crate) fn start<F, R>(input: pipe::Sender, output: pipe::Receiver, over: F) -> (Self, oneshot::Receiver<()>)
    where
        F: FnOnce(Option<String>) -> R + Send + 'static,
        R: Future<Output = String> + Send,
    {
        let (control, control_rx) = mpsc::unbounded_channel();
        let (data, data_rx) = mpsc::channel(DATA_QUEUE);
        let (hello, said_hello) = oneshot::channel();
        let shared = Arc::new(Shared {
            table: Table::new(hello),
            next: AtomicU32::new(1),
            control,
            data,
        });
        let client = Self { shared };
        let version = PROTOCOL_VERSION;
        client.send(&ToGuest::Hello { version });
        tokio::spawn(write_frames(input, control_rx, data_rx));
        let reader = client.clone();
        tokio::spawn(async move {
            let fault = reader.read_frames(output).await;
            let reason = over(fault).await;
            reader.shared.table.close(&reason);
        });
        (client, said_hello)
    }

    /// Resolves with the reason once the conversation has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.shared.table.ended()
    }

    fn send(&self, message: &ToGuest) {
        // Serializing these plain types cannot fail. Callers check lengths before.
        let json = serde_json::to_vec(message).unwrap_or_default();
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, FrameKind::Control, 0, &json);
        // A closed queue means the conversation is over; the table then knows.
        let _ = self.shared.control.send(bytes);
    }

    /// Queues bytes of a stream in order with what was queued before.
    async fn send_data(&self, kind: FrameKind, id: u32, bytes: &[u8]) -> bool {
        let mut frame = Vec::with_capacity(bytes.len() + 16);
        frame::encode(&mut frame, kind, id, bytes);
        self.shared.data.send(frame).await.is_ok()
    }

    fn next_id(&self) -> u32 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads until the Guest hangs up (`None`) or breaks the protocol.
    async fn read_frames(&self, mut output: pipe::Receiver) -> Option<String> {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => decoder.feed(&buffer[..n]),
            }
            loop {
                match decoder.next_frame() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(fault) = self.shared.table.accept(frame) {
                            return Some(format!("its Guest broke the protocol: {fault}"));
                        }
                    }
                    Err(e) => return Some(format!("its Guest broke the protocol: {e}")),
                }
            }
        }
    }

    /// Starts a command.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        exec::start(self, request).await
    }

    /// Reads a file whole.
    pub(crate) async fn read_file(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        let id = self.next_id();
        let path = checked_path(path)?;
        let what = path.clone();
        let (done, result) = oneshot::channel();
        let content = Vec::new();
        self.shared.table.insert(
            id,
            Pending::Read {
                path: path.clone(),
                limit,
                content,
                done,
            },
        )?;
        let _forget = Forget { client: self, id };
        self.send(&ToGuest::ReadFile { id, path, limit });
        result.await.unwrap_or(Err(SandboxError::Gone(what)))
    }

    /// Writes a file whole.
    pub(crate) async fn write_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SandboxError> {
        let id = self.next_id();
        let path = checked_path(path)?;
        let what = path.clone();
        let (done, result) = oneshot::channel();
        let pending = Pending::Write {
            path: path.clone(),
            done,
        };
        self.shared.table.insert(id, pending)?;
        let _forget = Forget { client: self, id };
        let size = content.len() as u64;
        self.send(&ToGuest::WriteFile { id, path, mode, size });
        for chunk in content.chunks(FILE_CHUNK) {
            // The Guest may have refused already; then nobody waits for the rest.
            if !self.shared.table.knows(id) || !self.send_data(FrameKind::File, id, chunk).await {
                break;
            }
        }
        result.await.unwrap_or(Err(SandboxError::Gone(what)))
    }
}

/// Drops a request's place when its future ends, however it ends.
struct Forget<'c> {
    client: &'c Client,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.client.shared.table.remove(self.id);
    }
}

fn checked_path(path: &str) -> Result<String, SandboxError> {
    if path.starts_with('/') && !path.contains('\0') && path.len() < 4096 {
        Ok(path.to_owned())
    } else {
        Err(SandboxError::Invalid(format!(
            "'{}' is not a path inside the sandbox: give an absolute one of less than 4096 bytes",
            path.chars().take(100).collect::<String>()
        )))
    }
}

/// Whether a message fits into a control frame.
fn fits(message: &ToGuest) -> bool {
    serde_json::to_vec(message).is_ok_and(|json| json.len() <= MAX_CONTROL)
}

/// Control frames overtake data frames: a kill must not wait behind a file.
async fn write_frames(
    mut input: pipe::Sender,
    mut control: mpsc::UnboundedReceiver<Vec<u8>>,
    mut data: mpsc::Receiver<Vec<u8>>,
) {
    loop {
        let frame = tokio::select! {
            biased;
            Some(frame) = control.recv() => frame,
            Some(frame) = data.recv() => frame,
            else => return,
        };
        if input.write_all(&frame).await.is_err() {
            return;
        }
    }
}
