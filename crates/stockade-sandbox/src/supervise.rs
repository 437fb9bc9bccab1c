//! Starting a launcher and hearing from it until its sandbox is gone.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::UnixStream,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::{
    failure::{Failure, Step},
    launch::{
        clean,
        wire::{self, LaunchSpec, Report},
    },
};

/// Longest a set-up may take. It takes milliseconds; a copy of a large workspace seconds.
const SETUP: Duration = Duration::from_secs(120);
/// Longest the launcher may take for its clean-up before it is done without it.
const CLEANUP: Duration = Duration::from_secs(20);

/// The host's end of the lifeline. When the last copy is dropped the sandbox ends.
///
/// The socket keeps message borders (SOCK_SEQPACKET), which tokio has no type for; its
/// stream type serves for readiness, the reading is our own.
#[derive(Clone)]
pub(crate) struct Lifeline(Arc<UnixStream>);

impl Lifeline {
    /// Ends the sandbox. Idempotent; the end is reported later.
    pub(crate) fn cut(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    async fn receive(&self) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
        let receive = || wire::receive(self.0.as_fd());
        self.0.async_io(Interest::READABLE, receive).await
    }
}

/// A launcher whose sandbox is set up and about to become its Guest.
pub(crate) struct Launched {
    pub(crate) lifeline: Lifeline,
    /// tcp4, dns4 and, with IPv6, tcp6 and dns6.
    pub(crate) sockets: Vec<OwnedFd>,
    /// Resolves with the reason when the sandbox and its traces are gone.
    pub(crate) ended: watch::Receiver<Option<String>>,
}

/// Starts a launcher and waits until the boundary is in place. When the future is
/// dropped, or on error, the lifeline closes and the launcher cleans up by itself.
pub(crate) async fn launch(
    program: &[OsString],
    spec: LaunchSpec,
    guest: &OwnedFd,
    pipes: [OwnedFd; 2],
) -> Result<Launched, Failure> {
    let step = "start the launcher";
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).step(step)?;
    let ours = std::os::unix::net::UnixStream::from(ours);
    ours.set_nonblocking(true).step(step)?;
    let lifeline = Lifeline(Arc::new(UnixStream::from_std(ours).step(step)?));
    let (name, args) = program
        .split_first()
        .ok_or_else(|| Failure::new(step, "no launcher program is configured"))?;
    let mut child = Command::new(name)
        .args(args)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .step(step)?;
    let fds = [guest.as_raw_fd(), pipes[0].as_raw_fd(), pipes[1].as_raw_fd()];
    let sent = wire::send(lifeline.0.as_fd(), &spec, &fds);
    drop(pipes);
    let report = timeout(SETUP, lifeline.receive())
        .await
        .map_err(|_| Failure::new(step, format!("no answer within {} s", SETUP.as_secs())))?;
    // A program that ends at once breaks the socket; its last words say more than that.
    match sent.and(report).unwrap_or(None) {
        Some((Report::Ready, sockets)) if matches!(sockets.len(), 2 | 4) => {
            let (tx, ended) = watch::channel(None);
            tokio::spawn(supervise(child, lifeline.clone(), spec, tx));
            Ok(Launched {
                lifeline,
                sockets,
                ended,
            })
        }
        report => {
            let failure = match report {
                Some((Report::Failed(failure), _)) => failure,
                Some((Report::Ended(reason), _)) => Failure::new("set up the sandbox", reason),
                Some(_) => Failure::new("hand over the boundary", "sockets are missing"),
                None => Failure::new(step, last_words(&mut child).await),
            };
            // Nothing may be left behind when the error is seen.
            lifeline.cut();
            bury(child, &lifeline, &spec).await;
            Err(failure)
        }
    }
}

/// What a launcher that died without a report wrote to standard error.
async fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let read = stderr.take(2000).read_to_end(&mut words).await;
        if read.is_err() {
            words.clear();
        }
    }
    let status = child.wait().await;
    let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
    let words = String::from_utf8_lossy(&words);
    format!("it ended with {status} {}", words.trim())
}

async fn supervise(child: Child, lifeline: Lifeline, spec: LaunchSpec, ended: watch::Sender<Option<String>>) {
    let reason = bury(child, &lifeline, &spec).await;
    ended.send_replace(Some(reason));
}

/// Waits for the launcher's end and does its clean-up if it could not.
async fn bury(mut child: Child, lifeline: &Lifeline, spec: &LaunchSpec) -> String {
    let reason = loop {
        match lifeline.receive().await {
            Ok(Some((Report::Ended(reason), _))) => break Some(reason),
            // The exec of the Guest failed after all, or stray news.
            Ok(Some((Report::Failed(f), _))) => break Some(format!("{}: {}", f.step, f.cause)),
            Ok(Some((Report::Ready, _))) => {}
            Ok(None) | Err(_) => break None,
        }
    };
    if timeout(CLEANUP, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    let spec = spec.clone();
    // Nothing to do after a launcher that ended in order.
    let cleaned = tokio::task::spawn_blocking(move || clean(&spec)).await;
    if let Ok(Err(failure)) = cleaned {
        tracing::warn!(step = %failure.step, cause = %failure.cause, "a sandbox left something");
    }
    reason.unwrap_or_else(|| "its launcher was killed".to_owned())
}
