//! Noticing that a container's memory ran out. The daemon leaves such a container alive with one
//! process less; a sandbox that lost a process to that is not what it was, and ends as a whole.
#![allow(unsafe_code)]

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd, RawFd},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::cgroup::{CgroupDir, OomWatch, out_of_memory};

struct Old(OomWatch);

impl AsRawFd for Old {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Resolves when the kernel has killed something of the container because its memory was used up.
/// Waits for the groups to be known.
pub(super) async fn memory_ran_out(groups: &mut watch::Receiver<Vec<CgroupDir>>) {
    let known = groups.wait_for(|groups| !groups.is_empty()).await;
    let Ok(groups) = known.map(|groups| groups.clone()) else {
        return std::future::pending().await;
    };
    // Version 1 has a descriptor of its own for the news.
    if let Some(watched) = OomWatch::start(&groups) {
        told(watched).await;
    } else if let Some(events) = groups
        .iter()
        .find_map(|g| File::open(g.path.join("memory.events")).ok())
    {
        changed(events, || out_of_memory(&groups)).await;
    } else {
        std::future::pending().await
    }
}

async fn told(watched: OomWatch) {
    // SAFETY: the watch owns its descriptor and never changes it.
    let watched = unsafe { AsyncFd::register(Old(watched)) };
    let Ok(watched) = watched else {
        return std::future::pending().await;
    };
    while let Ok(mut news) = watched.readable().await {
        if watched.get_ref().0.is_over() {
            return;
        }
        news.clear_ready();
    }
    std::future::pending().await
}

/// Waits for a file of version 2 to change (poll(2) says POLLPRI then; Documentation/admin-guide/
/// cgroup-v2.rst, "memory.events") until `done`.
async fn changed(file: File, done: impl Fn() -> bool) {
    // SAFETY: the file owns its descriptor.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
    let Ok(watched) = watched else {
        return std::future::pending().await;
    };
    loop {
        if done() {
            return;
        }
        match watched.ready(Interest::PRIORITY).await {
            Ok(mut news) => news.clear_ready(),
            Err(_) => return std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::Duration};

    use tokio::time::timeout;

    use super::*;

    /// Where version 2 is mounted here, alone or beside version 1.
    fn unified() -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        roots.into_iter().find(|root| root.join("cgroup.controllers").exists())
    }

    /// Not every host has memory in version 2; that a group is populated is told in the same way.
    #[tokio::test]
    async fn a_change_of_a_file_of_version_2_is_heard() {
        let Some(root) = unified().filter(|_| nix::unistd::geteuid().is_root()) else {
            return; // Nothing to write to.
        };
        let group = root.join(format!("stockade-unit-{}", std::process::id()));
        fs::create_dir(&group).expect("a group");
        let events = group.join("cgroup.events");
        let populated = {
            let events = events.clone();
            move || fs::read_to_string(&events).unwrap_or_default().contains("populated 1")
        };
        let waiting = tokio::spawn(changed(File::open(&events).expect("opens"), populated));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let early = waiting.is_finished();
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
        fs::write(group.join("cgroup.procs"), sleeper.id().to_string()).expect("moves");
        let heard = timeout(Duration::from_secs(5), waiting).await;
        sleeper.kill().expect("kills");
        sleeper.wait().expect("ends");
        fs::remove_dir(&group).expect("removes");
        assert!(!early, "nothing had happened");
        heard.expect("it is heard").expect("no panic");
    }
}
