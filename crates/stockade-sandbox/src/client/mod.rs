//! The host's side of the conversation with one Guest.
//!
//! Two tasks per sandbox (one reads, one writes) and two per command. The reader never
//! waits for a consumer, so one slow command holds up nobody: output is bounded by the
//! credit we grant, and a Guest that sends more than it was granted is not a Guest any more.

mod confine;
mod exec;
mod files;
mod pending;
mod probe;
mod table;
mod transfer;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use stockade_guest_proto::{Decoder, FrameKind, MAX_CONTROL, PROTOCOL_VERSION, ToGuest, frame};
use stockade_ports::sandbox::{ExecRequest, Process, SandboxError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot, watch},
};

use self::table::Table;

const FILE_CHUNK: usize = 32 * 1024;
/// Data frames on their way to the pipe.
const DATA_QUEUE: usize = 16;

/// A conversation.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    /// What the image asks for; below every request's own environment.
    environment: Arc<[(String, String)]>,
}

struct Shared {
    table: Table,
    next: AtomicU32,
    control: mpsc::UnboundedSender<Vec<u8>>,
    data: mpsc::Sender<Vec<u8>>,
}

impl Client {
    /// Starts talking over two byte streams: `input` leads to the Guest's standard input,
    /// `output` comes from its standard output. The returned receiver resolves when the Guest
    /// has said hello.
    ///
    /// `over` is called once when the conversation ends, with the Guest's fault if there
    /// was one; it returns the reason the pending requests fail with.
    pub(crate) fn start<W, O, F, R>(input: W, output: O, over: F) -> (Self, oneshot::Receiver<()>)
    where
        W: AsyncWrite + Send + Unpin + 'static,
        O: AsyncRead + Send + Unpin + 'static,
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
        let client = Self {
            shared,
            environment: Arc::from([]),
        };
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

    /// The same conversation with the environment an image asks for: every command started
    /// through the returned value gets it, unless the request says otherwise.
    #[must_use]
    pub(crate) fn with_environment(mut self, environment: &[(String, String)]) -> Self {
        self.environment = environment.into();
        self
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
    async fn read_frames(&self, mut output: impl AsyncRead + Unpin) -> Option<String> {
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
}

/// Drops a request's place when its future ends, however it ends. The Guest gives up what it has
/// not answered.
struct Forget<'c> {
    client: &'c Client,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if self.client.shared.table.remove(self.id) {
            self.client.send(&ToGuest::Cancel { id: self.id });
        }
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
    mut input: impl AsyncWrite + Unpin,
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
        // Flushed at once: a stream that is not a pipe may keep bytes back.
        if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
}
