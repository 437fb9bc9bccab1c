//! Keeps the zygote: started when the first sandbox is made, again when it was killed, and gone
//! with its last holder.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair},
};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::launch::wire::{self, ArchiveOrder, LaunchSpec, Report};
use crate::failure::{Failure, Step};

/// Longest the zygote may take until it accepts orders.
const START: Duration = Duration::from_secs(30);
/// What is kept of its standard error, in bytes.
const WORDS: usize = 2000;
const STEP: &str = "start the launcher";

/// Starts zygotes as they are needed.
pub(crate) struct Nursery {
    program: Vec<OsString>,
    current: tokio::sync::Mutex<Option<Arc<Zygote>>>,
}

impl Nursery {
    pub(crate) fn new(program: Vec<OsString>) -> Self {
        Self {
            program,
            current: tokio::sync::Mutex::new(None),
        }
    }

    /// A zygote that accepts orders.
    pub(crate) async fn zygote(&self) -> Result<Arc<Zygote>, Failure> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(zygote) if zygote.is_alive() => Ok(Arc::clone(zygote)),
            _ => {
                let zygote = Arc::new(Zygote::start(&self.program).await?);
                Ok(Arc::clone(current.insert(zygote)))
            }
        }
    }
}

/// A running zygote. It ends when this is dropped; its launchers do not.
pub(crate) struct Zygote {
    socket: Socket,
    words: Arc<Mutex<Vec<u8>>>,
}

impl Zygote {
    async fn start(program: &[OsString]) -> Result<Self, Failure> {
        let (socket, theirs) = Socket::pair()?;
        let (name, args) = program
            .split_first()
            .ok_or_else(|| Failure::new(STEP, "no launcher program is configured"))?;
        let mut child = Command::new(name)
            .args(args)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .step(STEP)?;
        let words = Arc::new(Mutex::new(Vec::new()));
        let listening = child
            .stderr
            .take()
            .map(|stderr| tokio::spawn(listen(stderr, Arc::clone(&words))));
        let report = timeout(START, socket.receive()).await;
        let failure = match report.map_err(|_| Failure::new(STEP, format!("no answer within {} s", START.as_secs())))? {
            Ok(Some((Report::Ready, _))) => {
                tokio::spawn(async move { child.wait().await });
                return Ok(Self { socket, words });
            }
            Ok(Some((Report::Failed(failure), _))) => failure,
            // A program that ends at once breaks the socket; its last words say more than that.
            _ => Failure::new(STEP, ending(&mut child, listening, &words).await),
        };
        drop(socket);
        tokio::spawn(async move { child.wait().await });
        Err(failure)
    }

    /// Has a launcher made for `spec`. The descriptors are its lifeline, the Guest's program, its
    /// standard input and its standard output.
    pub(crate) async fn order(&self, spec: &LaunchSpec, fds: &[RawFd; 4]) -> io::Result<()> {
        self.socket.send(spec, fds).await
    }

    /// Has an archiver made. The descriptors are its line to us, the root of a layer, a user
    /// namespace and the file to write to.
    pub(crate) async fn order_archive(&self, order: &ArchiveOrder, fds: &[RawFd; 4]) -> io::Result<()> {
        self.socket.send(order, fds).await
    }

    pub(crate) fn is_alive(&self) -> bool {
        let mut byte = [0];
        let peeked = recv(
            self.socket.0.as_raw_fd(),
            &mut byte,
            MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
        );
        // It never speaks again: anything to read is the end of the connection.
        peeked == Err(Errno::EAGAIN)
    }

    /// The last it, or a launcher of it, wrote to standard error.
    pub(crate) fn last_words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words).trim().to_owned()
    }
}

/// How a program that is no launcher ended, and what it wrote to standard error.
async fn ending(child: &mut Child, listening: Option<tokio::task::JoinHandle<()>>, words: &Mutex<Vec<u8>>) -> String {
    let status = child.wait().await;
    let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
    if let Some(listening) = listening {
        let _ = timeout(Duration::from_secs(1), listening).await;
    }
    let words = words.lock().unwrap_or_else(PoisonError::into_inner);
    format!("it ended with {status} {}", String::from_utf8_lossy(&words).trim())
}

async fn listen(mut stderr: ChildStderr, words: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&buffer[..length]);
        let surplus = words.len().saturating_sub(WORDS);
        words.drain(..surplus);
    }
}

/// A socket of whole messages.
///
/// The kernel's SOCK_SEQPACKET, which tokio has no type for; its stream type serves for
/// readiness, reading and writing are our own.
#[derive(Clone)]
pub(crate) struct Socket(pub(super) Arc<UnixStream>);

impl Socket {
    /// Our end and the other one.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), Failure> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).step(STEP)?;
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true).step(STEP)?;
        Ok((Self(Arc::new(UnixStream::from_std(ours).step(STEP)?)), theirs))
    }

    pub(crate) async fn receive(&self) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
        let receive = || wire::receive(self.0.as_fd());
        self.0.async_io(Interest::READABLE, receive).await
    }

    pub(crate) async fn send<T: serde::Serialize>(&self, message: &T, fds: &[RawFd]) -> io::Result<()> {
        let send = || wire::send(self.0.as_fd(), message, fds);
        self.0.async_io(Interest::WRITABLE, send).await
    }
}
