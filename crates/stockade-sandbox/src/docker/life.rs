//! What holds a container, and what becomes of it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures::StreamExt as _;
use nix::sys::signal::Signal;
use stockade_ports::sandbox::SandboxError;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    BACKEND,
    daemon::{is_conflict, is_unknown, step, words},
    den::Den,
    memory::memory_ran_out,
};
use crate::{
    cgroup::{CgroupDir, OUT_OF_MEMORY},
    live::{Life, reason},
};

/// Longest the daemon may take to finish a removal it has begun.
const REMOVAL: Duration = Duration::from_secs(20);

/// A container that is ended with its last copy.
pub(super) struct DockerLife {
    pub(super) api: Docker,
    pub(super) container: String,
    pub(super) groups: Vec<CgroupDir>,
    pub(super) held: Held,
}

#[async_trait]
impl Life for DockerLife {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn cut(&self) {
        self.held.cut();
    }

    async fn gone(&self) {
        self.held.gone().await;
    }

    fn cgroups(&self) -> &[CgroupDir] {
        &self.groups
    }

    async fn freeze(&self, frozen: bool) -> Result<(), SandboxError> {
        let (what, done) = if frozen {
            ("pause the container", self.api.pause_container(&self.container).await)
        } else {
            (
                "let the container go on",
                self.api.unpause_container(&self.container).await,
            )
        };
        match done {
            Ok(()) => Ok(()),
            // It is paused, or is not, already.
            Err(Error::DockerResponseServerError {
                status_code: 409 | 500,
                message,
            }) if message.contains(ALREADY[usize::from(!frozen)]) => Ok(()),
            Err(error) if is_unknown(&error) => Err(SandboxError::Gone("its container has ended".to_owned())),
            Err(error) => Err(step(what)(error)),
        }
    }
}

/// How the daemon says that there is nothing to do (moby, daemon/pause.go and unpause.go).
const ALREADY: [&str; 2] = ["already paused", "is not paused"];

/// A container with somebody who waits for its end. Dropping this ends it.
pub(super) struct Held {
    /// Its cgroups, once it runs.
    groups: watch::Sender<Vec<CgroupDir>>,
    cut: Arc<Notify>,
    pub(super) gone: watch::Receiver<Option<String>>,
}

impl Held {
    /// Watches over a container that was made and not yet started.
    pub(super) fn begin(api: Docker, container: String, den: Arc<Den>) -> Self {
        let cut = Arc::new(Notify::new());
        let (tell, gone) = watch::channel(None);
        let (groups, known) = watch::channel(Vec::new());
        let orders = Orders {
            cut: Arc::clone(&cut),
            groups: known,
        };
        tokio::spawn(bury(api, container, orders, den, tell));
        Self { groups, cut, gone }
    }

    /// Says which cgroups it is in, so that the end of its memory is noticed.
    pub(super) fn runs_in(&self, groups: Vec<CgroupDir>) {
        self.groups.send_replace(groups);
    }

    /// What begins the end from elsewhere.
    pub(super) fn cutter(&self) -> Arc<Notify> {
        Arc::clone(&self.cut)
    }

    /// Resolves when nothing is left.
    pub(super) async fn gone(&self) {
        reason(self.gone.clone()).await;
    }

    /// Begins the end. Idempotent.
    pub(super) fn cut(&self) {
        // Kept for a task that does not wait yet.
        self.cut.notify_one();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What a container's watcher listens to.
struct Orders {
    cut: Arc<Notify>,
    groups: watch::Receiver<Vec<CgroupDir>>,
}

/// Waits until a container has ended or is to end, and sees to it that nothing is left.
async fn bury(api: Docker, container: String, mut orders: Orders, den: Arc<Den>, tell: watch::Sender<Option<String>>) {
    let options = WaitContainerOptionsBuilder::new().condition("removed").build();
    let mut removed = std::pin::pin!(api.wait_container(&container, Some(options)));
    let why = tokio::select! {
        ended = removed.next() => how(ended),
        () = orders.cut.notified() => {
            remove(&api, &container, &mut removed).await;
            "it was destroyed".to_owned()
        }
        () = memory_ran_out(&mut orders.groups) => {
            remove(&api, &container, &mut removed).await;
            OUT_OF_MEMORY.to_owned()
        }
    };
    let cleaned = tokio::task::spawn_blocking(move || drop(den)).await;
    if let Err(error) = cleaned {
        tracing::warn!(container, %error, "a sandbox's files may have been left");
    }
    tell.send_replace(Some(why));
}

type Ended = Option<Result<bollard::models::ContainerWaitResponse, Error>>;

/// Why the container is no more.
fn how(ended: Ended) -> String {
    let code = match ended {
        Some(Ok(response)) => response.status_code,
        // The library's way to say that the code is not 0.
        Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) if is_unknown(&error) => return "its container was removed".to_owned(),
        Some(Err(error)) => return format!("the Docker daemon no longer speaks of it: {}", words(&error)),
        None => return "the Docker daemon no longer speaks of it".to_owned(),
    };
    // 128 and the signal's number, as a shell has it.
    let signal = i32::try_from(code - 128)
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    match signal {
        Some(signal) => format!("its Guest was ended by {signal}"),
        None => format!("its Guest ended with code {code}"),
    }
}

/// Kills and removes a container nobody watches over.
pub(super) async fn remove_abandoned(api: &Docker, container: &str) {
    let options = WaitContainerOptionsBuilder::new().condition("removed").build();
    let mut removed = std::pin::pin!(api.wait_container(container, Some(options)));
    remove(api, container, &mut removed).await;
}

/// Kills and removes. When the daemon is at it already, because the Guest has just ended, waits.
async fn remove<S>(api: &Docker, container: &str, removed: &mut S)
where
    S: futures::Stream<Item = Result<bollard::models::ContainerWaitResponse, Error>> + Unpin,
{
    for _ in 0..3 {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match api.remove_container(container, Some(options)).await {
            Ok(()) => return,
            Err(error) if is_unknown(&error) => return,
            Err(error) if is_conflict(&error) => {
                if timeout(REMOVAL, removed.next()).await.is_ok() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(
                    container,
                    cause = words(&error),
                    "the Docker daemon does not remove a container"
                );
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    tracing::warn!(
        container,
        "a container was left; the reaper will try again at the next start"
    );
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerWaitResponse;

    use super::*;

    #[test]
    fn an_end_is_told_by_its_code() {
        let with = |code| {
            how(Some(Ok(ContainerWaitResponse {
                status_code: code,
                ..ContainerWaitResponse::default()
            })))
        };
        assert_eq!(with(137), "its Guest was ended by SIGKILL");
        assert_eq!(with(0), "its Guest ended with code 0");
        assert_eq!(with(3), "its Guest ended with code 3");
        let error = Error::DockerContainerWaitError {
            error: String::new(),
            code: 139,
        };
        assert_eq!(how(Some(Err(error))), "its Guest was ended by SIGSEGV");
        assert!(how(None).contains("no longer"));
    }
}
