//! Ordering a launcher and hearing from it until its sandbox is gone.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    launch::{
        clean,
        wire::{Claim, LaunchSpec, Report},
    },
    snapshot::Inside,
    zygote::{Nursery, Socket},
};
use crate::failure::{Failure, Step};

/// Longest a set-up may take. It takes milliseconds; a copy of a large workspace seconds.
const SETUP: Duration = Duration::from_secs(120);
/// Longest the launcher may take for its clean-up before it is done without it.
const CLEANUP: Duration = Duration::from_secs(20);
/// A zygote may die at any time; a second one in a row is not chance.
const ATTEMPTS: u32 = 2;
const STEP: &str = "start the launcher";

/// The host's end of the lifeline. When the last copy is dropped the sandbox ends.
#[derive(Clone)]
pub(crate) struct Lifeline(Socket);

impl Lifeline {
    /// Ends the sandbox. Idempotent; the end is reported later.
    pub(crate) fn cut(&self) {
        let _ = shutdown(self.0.0.as_raw_fd(), Shutdown::Write);
    }
}

/// A launcher whose sandbox is set up and about to become its Guest.
pub(crate) struct Launched {
    pub(crate) lifeline: Lifeline,
    /// The way to its files.
    pub(crate) inside: Inside,
    /// tcp4, dns4 and, with IPv6, tcp6 and dns6.
    pub(crate) sockets: Vec<OwnedFd>,
    /// Resolves with the reason when the sandbox and its traces are gone.
    pub(crate) ended: watch::Receiver<Option<String>>,
    /// What became of a claim.
    claims: mpsc::UnboundedReceiver<Result<(), Failure>>,
}

/// Has a launcher made and waits until the boundary is in place. When the future is
/// dropped, or on error, the lifeline closes and the launcher cleans up by itself.
pub(crate) async fn launch(
    nursery: &Nursery,
    spec: &LaunchSpec,
    guest: &OwnedFd,
    pipes: [OwnedFd; 2],
) -> Result<Launched, Failure> {
    let mut attempt = 1;
    loop {
        let zygote = nursery.zygote().await?;
        let (lifeline, theirs) = Socket::pair()?;
        let fds = [&theirs, guest, &pipes[0], &pipes[1]].map(AsRawFd::as_raw_fd);
        let sent = zygote.order(spec, &fds).await;
        drop(theirs);
        let report = timeout(SETUP, lifeline.receive())
            .await
            .map_err(|_| Failure::new(STEP, format!("no answer within {} s", SETUP.as_secs())))?;
        match report.unwrap_or(None) {
            Some((Report::Ready, fds)) if matches!(fds.len(), 5 | 7) => return Ok(launched(lifeline, fds, spec)),
            // It died before it had made the launcher, or in the middle of it.
            None if attempt < ATTEMPTS && !zygote.is_alive() => attempt += 1,
            report => {
                let failure = match report {
                    Some((Report::Failed(failure), _)) => failure,
                    Some((Report::Ended(reason), _)) => Failure::new("set up the sandbox", reason),
                    Some(_) => Failure::new("hand over the boundary", "sockets are missing"),
                    None => {
                        let how = sent.map_or_else(|e| e.to_string(), |()| "it ended without a report".to_owned());
                        Failure::new(STEP, format!("{how} {}", zygote.last_words()))
                    }
                };
                // Nothing may be left behind when the error is seen.
                let lifeline = Lifeline(lifeline);
                lifeline.cut();
                let (claims, _) = mpsc::unbounded_channel();
                bury(None, &lifeline, spec, &claims).await;
                return Err(failure);
            }
        }
    }
}

fn launched(lifeline: Socket, fds: Vec<OwnedFd>, spec: &LaunchSpec) -> Launched {
    let mut fds = fds.into_iter();
    let launcher = fds.next();
    let inside = fds
        .next()
        .zip(fds.next())
        .map(|(layer, user)| Inside::new(layer, user))
        .unwrap_or_default();
    let lifeline = Lifeline(lifeline);
    let (tx, ended) = watch::channel(None);
    let (claimed, claims) = mpsc::unbounded_channel();
    let (line, spec, into) = (lifeline.clone(), spec.clone(), inside.clone());
    tokio::spawn(async move {
        let reason = bury(launcher, &line, &spec, &claimed).await;
        into.close();
        tx.send_replace(Some(reason));
    });
    Launched {
        lifeline,
        sockets: fds.collect(),
        inside,
        ended,
        claims,
    }
}

/// The way to bind a warm sandbox to its run, once.
pub(crate) struct Claims {
    lifeline: Lifeline,
    claims: mpsc::UnboundedReceiver<Result<(), Failure>>,
}

impl Launched {
    pub(crate) fn claims(&mut self) -> Claims {
        let (_, none) = mpsc::unbounded_channel();
        Claims {
            lifeline: self.lifeline.clone(),
            claims: std::mem::replace(&mut self.claims, none),
        }
    }
}

impl Claims {
    /// Has the run's mounts made. On failure the sandbox ends.
    pub(crate) async fn claim(mut self, claim: &Claim) -> Result<(), Failure> {
        let step = "bind the sandbox to its run";
        self.lifeline.0.send(claim, &[]).await.step(step)?;
        let gone = || Err(Failure::new(step, "it ended meanwhile"));
        match timeout(SETUP, self.claims.recv()).await {
            Ok(done) => done.unwrap_or_else(gone),
            Err(_) => Err(Failure::new(step, format!("no answer within {} s", SETUP.as_secs()))),
        }
    }
}

/// Waits for the launcher's end and does its clean-up if it could not.
async fn bury(
    launcher: Option<OwnedFd>,
    lifeline: &Lifeline,
    spec: &LaunchSpec,
    claims: &mpsc::UnboundedSender<Result<(), Failure>>,
) -> String {
    let mut fault = None;
    let reason = loop {
        match lifeline.0.receive().await {
            Ok(Some((Report::Ended(reason), _))) => break Some(fault.unwrap_or(reason)),
            // Nobody listening is fine.
            Ok(Some((Report::Claimed, _))) => drop(claims.send(Ok(()))),
            // A claim that failed, or after all the exec of the Guest; the end follows.
            Ok(Some((Report::Failed(failure), _))) => {
                fault = Some(format!("{}: {}", failure.step, failure.cause));
                let _ = claims.send(Err(failure));
            }
            Ok(Some((Report::Ready | Report::Archived, _))) => {}
            Ok(None) | Err(_) => break None,
        }
    };
    match launcher {
        Some(pidfd) => wait_for_exit(pidfd).await,
        // Its end of the socket closes when it exits.
        None => while let Ok(Ok(Some(_))) = timeout(CLEANUP, lifeline.0.receive()).await {},
    }
    let spec = spec.clone();
    // Nothing to do after a launcher that ended in order.
    let cleaned = tokio::task::spawn_blocking(move || clean(&spec)).await;
    if let Ok(Err(failure)) = cleaned {
        tracing::warn!(step = %failure.step, cause = %failure.cause, "a sandbox left something");
    }
    reason.unwrap_or_else(|| "its launcher was killed".to_owned())
}

/// Waits until a process has exited, and kills it when it takes too long.
async fn wait_for_exit(pidfd: OwnedFd) {
    let Some(pidfd) = watch_exit(pidfd) else { return };
    if timeout(CLEANUP, pidfd.readable()).await.is_err() {
        end(pidfd.get_ref());
        let _ = timeout(CLEANUP, pidfd.readable()).await;
    }
}

/// A pidfd is readable once its process has exited (pidfd_open(2)).
#[allow(unsafe_code)]
fn watch_exit(pidfd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and the same descriptor as long as it lives, and the result owns it.
    unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE) }.ok()
}

#[allow(unsafe_code)]
fn end(pidfd: &OwnedFd) {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: sends a signal to the process the descriptor stands for; no memory is passed.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, none, 0) };
}
