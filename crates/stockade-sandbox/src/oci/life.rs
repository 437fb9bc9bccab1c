//! What holds a sandbox of an OCI runtime, and what is done when it ends.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stockade_ports::sandbox::{RootFs, SandboxError};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::UnixStream,
    process::Child,
    sync::watch,
    time::timeout,
};

use super::{
    groups::Groups,
    runtime::{Runtime, pid_file},
};
use crate::{
    cgroup::{self, CgroupDir, OUT_OF_MEMORY, OomWatch},
    failure::{Failure, Step},
    live::{Life, reason},
    native::launch::userns::Slot,
};

/// Longest a runtime may take to end once everything it waits for was killed.
const FAREWELL: Duration = Duration::from_secs(5);
/// Most of a runtime's complaints that is kept, in bytes.
const LAST_WORDS: usize = 4096;

/// Why a sandbox of gVisor's ended that needed more threads on the host than it may have.
const OUT_OF_THREADS: &str = "gVisor needed more threads on the host than the limit on processes gives it: \
    fewer busy processes at once, or a higher limit";

/// What a sandbox keeps on the host. Dropping it removes that.
pub(super) struct Remains {
    name: String,
    dir: PathBuf,
    groups: Groups,
    slot: Option<Slot>,
    /// An image must not be collected while a sandbox is made of it.
    _rootfs: RootFs,
    removed: bool,
}

impl Remains {
    pub(super) fn new(name: String, dir: PathBuf, groups: Groups, slot: Option<Slot>, rootfs: RootFs) -> Self {
        Self {
            name,
            dir,
            groups,
            slot,
            _rootfs: rootfs,
            removed: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Host uid of the sandbox's user, where users are mapped.
    pub(super) fn uid(&self) -> Option<u32> {
        self.slot.as_ref().map(|slot| slot.uid)
    }

    /// Kills what is left of the sandbox and removes its cgroups and its directory. Blocking.
    fn remove(&mut self) -> Result<(), Failure> {
        self.removed = true;
        let groups = self.groups.remove();
        let dir = match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::new("remove the sandbox's directory", e)),
            _ => Ok(()),
        };
        groups.and(dir)
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if !self.removed
            && let Err(failure) = self.remove()
        {
            tracing::warn!(step = %failure.step, cause = %failure.cause, "a sandbox left something");
        }
    }
}

/// A sandbox behind its runtime. When the last copy is dropped the sandbox ends.
#[derive(Clone)]
pub(super) struct OciLife {
    runtime: Runtime,
    groups: Arc<Groups>,
    dir: Arc<Path>,
    cut: Arc<watch::Sender<bool>>,
    removed: watch::Receiver<Option<String>>,
}

impl OciLife {
    /// Watches over a runtime until it ends or is cut off, then removes what is left.
    pub(super) fn watch(runtime: Runtime, child: Child, complaints: UnixStream, remains: Remains) -> Self {
        let (cut, cutting) = watch::channel(false);
        let (tell, removed) = watch::channel(None);
        let life = Self {
            runtime,
            groups: Arc::new(remains.groups.clone()),
            dir: remains.dir.as_path().into(),
            cut: Arc::new(cut),
            removed,
        };
        tokio::spawn(async move {
            let ended = supervise(runtime, child, complaints, remains, cutting).await;
            tell.send_replace(Some(ended));
        });
        life
    }

    /// Puts the Guest into cgroups that its runtime has left out. Nothing of the agent's may run
    /// before. Blocking.
    pub(super) fn limit(&self) -> Result<(), Failure> {
        if !self.runtime.makes_cgroups() {
            return Ok(());
        }
        // The Guest may have spoken before the runtime has written the number down.
        self.groups.fill(|| {
            let begun = Instant::now();
            loop {
                match first_process(&self.dir) {
                    Err(_) if begun.elapsed() < FAREWELL => thread::sleep(Duration::from_millis(1)),
                    found => return found,
                }
            }
        })
    }

    pub(super) fn cut_off(&self) {
        self.cut.send_replace(true);
    }

    /// Resolves with the reason when the sandbox and its traces are gone.
    pub(super) async fn ended(&self) -> String {
        reason(self.removed.clone()).await
    }
}

#[async_trait]
impl Life for OciLife {
    fn backend(&self) -> &'static str {
        self.runtime.name()
    }

    fn cut(&self) {
        self.cut_off();
    }

    async fn gone(&self) {
        self.ended().await;
    }

    fn cgroups(&self) -> &[CgroupDir] {
        self.groups.limiting()
    }

    async fn freeze(&self, frozen: bool) -> Result<(), SandboxError> {
        let groups = self.groups.clone();
        let done = tokio::task::spawn_blocking(move || cgroup::freeze(groups.limiting(), frozen)).await;
        let done = done.step("pause the sandbox").and_then(|done| done);
        done.map_err(|failure| failure.into_error_of(self.backend()))
    }
}

/// The process the runtime noted.
fn first_process(dir: &Path) -> io::Result<i32> {
    fs::read_to_string(pid_file(dir))?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

async fn supervise(
    runtime: Runtime,
    mut child: Child,
    complaints: UnixStream,
    remains: Remains,
    mut cutting: watch::Receiver<bool>,
) -> String {
    let words = tokio::spawn(listen(complaints));
    let status = tokio::select! {
        status = child.wait() => Some(status),
        () = memory_ran_out(&remains) => None,
        // Cut off, or nobody is left who could.
        _ = cutting.wait_for(|cut| *cut) => None,
    };
    let groups = remains.groups.limiting();
    let starved = cgroup::out_of_memory(groups);
    // Elsewhere a refused process is the agent's affair, not the sandbox's end.
    let threads = runtime == Runtime::Runsc && remains.groups.out_of_threads();
    // What it adds to a reason that is not known yet.
    let hit = cgroup::epitaph(String::new(), groups);
    let left = bury(child, remains).await;
    let words = timeout(FAREWELL, words)
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default();
    let reason = match status {
        _ if starved => OUT_OF_MEMORY.to_owned(),
        Some(Ok(status)) if threads && !status.success() => format!("{OUT_OF_THREADS}{hit}"),
        Some(Ok(status)) => describe(runtime, status, &words) + &hit,
        Some(Err(e)) => format!("its runtime was lost: {e}"),
        None => "it was destroyed".to_owned(),
    };
    match left {
        Ok(()) => reason,
        Err(failure) => format!("{reason}; {}: {}", failure.step, failure.cause),
    }
}

/// Resolves when the kernel of a host with cgroups of version 1 has killed something of the
/// sandbox; version 2 ends the sandbox by itself.
async fn memory_ran_out(remains: &Remains) {
    if let Some(watched) = OomWatch::start(remains.groups.limiting()).map(Watched)
        // SAFETY: the descriptor belongs to the watch, which neither closes nor changes it
        // before it is dropped, and the registration owns the watch.
        && let Ok(watched) = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }
    {
        while let Ok(mut news) = watched.readable().await {
            if watched.get_ref().0.is_over() {
                return;
            }
            news.clear_ready();
        }
    }
    std::future::pending().await
}

/// What tokio can wait for.
struct Watched(OomWatch);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Ends a runtime and what runs in it, and removes everything.
async fn bury(mut child: Child, mut remains: Remains) -> Result<(), Failure> {
    if let Some(runtime) = child.id()
        && let Ok(runtime) = i32::try_from(runtime)
    {
        // Where there are no cgroups to find the sandbox by, its first process takes the others
        // along. The runtime has not waited for it yet, so the number is still its own.
        if let Ok(first) = first_process(&remains.dir)
            && parent(first) == Some(runtime)
        {
            let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
        }
        cgroup::let_die(remains.groups.limiting());
        let _ = child.start_kill();
        let _ = timeout(FAREWELL, child.wait()).await;
    }
    let removed = tokio::task::spawn_blocking(move || remains.remove()).await;
    removed.step("remove what the sandbox left").and_then(|removed| removed)
}

/// The parent of a process, from `/proc/<pid>/stat` (proc(5)).
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// What the runtime complains of, at most [`LAST_WORDS`] of it; the rest is read and dropped, so
/// that nobody ever waits for us.
async fn listen(mut stderr: UnixStream) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; LAST_WORDS]);
    while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
        let room = LAST_WORDS.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Runtimes end with what their container ended with, signals as 128 and their number.
fn describe(runtime: Runtime, status: ExitStatus, words: &str) -> String {
    let name = runtime.name();
    let words = words.lines().map(str::trim).rfind(|line| !line.is_empty());
    match (status.code(), words) {
        (Some(code @ 129..=192), _) => match Signal::try_from(code - 128) {
            Ok(signal) => format!("its Guest was ended by {signal}"),
            Err(_) => format!("its Guest ended with code {code}"),
        },
        (Some(0), _) => "its Guest ended with code 0".to_owned(),
        (_, Some(words)) => format!("{name}: {words}"),
        (Some(code), None) => format!("its Guest ended with code {code}"),
        (None, None) => format!("{name} was ended by signal {}", status.signal().unwrap_or(0)),
    }
}
