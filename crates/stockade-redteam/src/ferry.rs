//! The driver's side of the attacker's ferry: connections made inside a sandbox, or where nothing stops them, that
//! are used from here. So one client speaks TLS and HTTP on both sides, and every byte comes from the attacker.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use stockade_ports::{ExecRequest, Output, sandbox::AGENTS_DIR};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::{field::Field, inside::Inside};

const OPEN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const OPENED: u8 = 4;
const FAILED: u8 = 5;
const HEAD: usize = 7;
/// Longest a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(4);
/// Longest a ferry lives.
const LIFE: Duration = Duration::from_mins(5);
/// Most it may carry out.
const CARGO: u64 = 256 << 20;

enum Word {
    Opened,
    Data(Bytes),
    End,
    Failed(String),
}

type Sides = Arc<Mutex<HashMap<u16, mpsc::UnboundedSender<Word>>>>;

/// One attacker that carries bytes. It ends when it is dropped.
pub(crate) struct Ferry {
    input: mpsc::Sender<Bytes>,
    sides: Sides,
    next: AtomicU16,
    _child: Option<Child>,
}

fn lock(sides: &Sides) -> MutexGuard<'_, HashMap<u16, mpsc::UnboundedSender<Word>>> {
    sides.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ferry {
    /// Starts one in a sandbox.
    pub(crate) async fn inside(target: &Inside) -> Result<Self, String> {
        let request = ExecRequest {
            argv: vec![format!("{AGENTS_DIR}/attacker"), "ferry".to_owned()],
            // As an agent's own process has them.
            env: target.session.variables().into_iter().collect(),
            timeout: Some(LIFE),
            max_output: Some(CARGO),
            stdin: true,
            ..ExecRequest::default()
        };
        let process = target.handle.exec(request).await.map_err(|error| error.to_string())?;
        let sides = Sides::default();
        let mut reader = Reader::new(Arc::clone(&sides));
        let mut output = process.output;
        tokio::spawn(async move {
            while let Some(piece) = output.recv().await {
                match piece {
                    Output::Stdout(bytes) => reader.take(&bytes),
                    Output::Stderr(_) => {}
                    Output::Exited(_) => break,
                }
            }
            reader.over();
        });
        Ok(Self::over(process.stdin, sides, None))
    }

    /// Starts one where nothing stops it.
    pub(crate) fn outside(field: &Field) -> Result<Self, String> {
        let canaries = &field.parts.canaries;
        let mut command = Command::new(field.plants.attacker());
        command
            .args(["ferry".to_owned(), format!("through={}", canaries.road())])
            .arg(format!("resolver={}", canaries.nameserver()))
            .current_dir(field.plants.outside())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its pipes are gone".to_owned());
        };
        let (input, mut orders) = mpsc::channel::<Bytes>(64);
        tokio::spawn(async move {
            while let Some(bytes) = orders.recv().await {
                if stdin.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        let sides = Sides::default();
        let mut reader = Reader::new(Arc::clone(&sides));
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length) = stdout.read(&mut buffer).await {
                if length == 0 {
                    break;
                }
                reader.take(&buffer[..length]);
            }
            reader.over();
        });
        Ok(Self::over(input, sides, Some(child)))
    }

    fn over(input: mpsc::Sender<Bytes>, sides: Sides, child: Option<Child>) -> Self {
        Self {
            input,
            sides,
            next: AtomicU16::new(1),
            _child: child,
        }
    }

    async fn open(&self, place: &str) -> Result<(u16, mpsc::UnboundedReceiver<Word>), String> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let (sender, mut words) = mpsc::unbounded_channel();
        lock(&self.sides).insert(id, sender);
        send(&self.input, id, OPEN, place.as_bytes()).await?;
        match timeout(PATIENCE, words.recv()).await {
            Ok(Some(Word::Opened)) => Ok((id, words)),
            Ok(Some(Word::Failed(why))) => Err(why),
            Ok(_) => Err("the attacker is gone".to_owned()),
            Err(_) => Err("no connection in time".to_owned()),
        }
    }

    /// A stream to a port of a host, which is looked up there.
    pub(crate) async fn tcp(&self, host: &str, port: u16) -> Result<DuplexStream, String> {
        let (id, mut words) = self.open(&format!("tcp {host} {port}")).await?;
        let (ours, theirs) = duplex(1 << 18);
        let (mut read, mut write) = tokio::io::split(theirs);
        let input = self.input.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 14];
            while let Ok(length) = read.read(&mut buffer).await {
                if length == 0 || send(&input, id, DATA, &buffer[..length]).await.is_err() {
                    break;
                }
            }
            let _ = send(&input, id, END, b"").await;
        });
        let sides = Arc::clone(&self.sides);
        tokio::spawn(async move {
            while let Some(Word::Data(bytes)) = words.recv().await {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = write.shutdown().await;
            lock(&sides).remove(&id);
        });
        Ok(ours)
    }

    /// Sends one datagram and waits a while for one back.
    pub(crate) async fn datagram(
        &self,
        host: &str,
        port: u16,
        packet: &[u8],
        patience: Duration,
    ) -> Result<Bytes, String> {
        let (id, mut words) = self.open(&format!("udp {host} {port}")).await?;
        send(&self.input, id, DATA, packet).await?;
        let heard = timeout(patience, words.recv()).await;
        let _ = send(&self.input, id, END, b"").await;
        lock(&self.sides).remove(&id);
        match heard {
            Ok(Some(Word::Data(bytes))) => Ok(bytes),
            Ok(Some(Word::Failed(why))) => Err(why),
            Ok(_) => Err("it was closed".to_owned()),
            Err(_) => Err("nothing came back".to_owned()),
        }
    }
}

async fn send(input: &mpsc::Sender<Bytes>, id: u16, kind: u8, bytes: &[u8]) -> Result<(), String> {
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let frame = [&id.to_be_bytes()[..], &[kind], &length, bytes].concat();
    let sent = input.send(frame.into()).await;
    sent.map_err(|_| "the attacker is gone".to_owned())
}

/// Hands frames to whom they are for.
struct Reader {
    sides: Sides,
    buffer: BytesMut,
}

impl Reader {
    fn new(sides: Sides) -> Self {
        Self {
            sides,
            buffer: BytesMut::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= HEAD {
            let length = u32::from_be_bytes([self.buffer[3], self.buffer[4], self.buffer[5], self.buffer[6]]) as usize;
            if self.buffer.len() < HEAD + length {
                return;
            }
            let id = u16::from_be_bytes([self.buffer[0], self.buffer[1]]);
            let kind = self.buffer[2];
            self.buffer.advance(HEAD);
            let bytes = self.buffer.split_to(length).freeze();
            let word = match kind {
                OPENED => Word::Opened,
                DATA => Word::Data(bytes),
                END => Word::End,
                FAILED => Word::Failed(String::from_utf8_lossy(&bytes).into_owned()),
                _ => continue,
            };
            if let Some(side) = lock(&self.sides).get(&id) {
                let _ = side.send(word);
            }
        }
    }

    fn over(&mut self) {
        lock(&self.sides).clear();
    }
}
