//! Paths that are somebody's trap: swapped while they are used, or the Guest's own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stockade_ports::sandbox::{SandboxError, SandboxHandle};

use crate::{
    bed::{Bed, cases, refused, request, sh},
    entries::paths,
};

cases!(swapped_links_never_lead_out, nothing_lends_the_guests_identity);

/// A part of a path is a directory of the tree now and a link out of it then.
async fn swapped_links_never_lead_out(bed: Bed) {
    let handle = bed.create().await;
    let script = "set -e; mkdir -p /tmp/tree/real /home/agent/secret; cd /tmp/tree; echo inside > real/file;
        echo SECRET > /home/agent/secret/file; : > /home/agent/secret/mark; ln -s real spot";
    sh(&*handle, script).await.ok();
    let (mut read, mut refusals) = (0, 0);
    let swap = "cd /tmp/tree; echo go; while :; do
        ln -s /home/agent/secret a; mv -T a spot; ln -s real b; mv -T b spot; done";
    let mut swapper = handle.exec(request(&["sh", "-c", swap])).await.expect("starts");
    swapper.output.recv().await.expect("goes");
    let race = Race::begin();
    while race.goes_on(read + refusals, read > 0 && refusals > 0) {
        match handle.read_file("/tmp/tree/spot/file", 100).await {
            Ok(content) => {
                assert_eq!(content, Bytes::from_static(b"inside\n"), "read outside the tree");
                read += 1;
            }
            Err(SandboxError::Invalid(_)) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        if let Ok(listing) = handle.list("/tmp/tree/spot", 2, 100).await {
            assert_eq!(paths(&listing.entries), ["/tmp/tree/spot/file"]);
        }
    }
    drop(swapper);
    assert!(
        read > 0 && refusals > 0,
        "{read} read, {refusals} refused: there was no race"
    );
    // What changes something follows no link at all.
    let swap = "cd /tmp/tree; echo go; while :; do
        rm -rf spot; mkdir spot; rm -rf spot; ln -s /home/agent/secret spot; done";
    let mut swapper = handle.exec(request(&["sh", "-c", swap])).await.expect("starts");
    swapper.output.recv().await.expect("goes");
    let (mut done, mut last) = (0, String::new());
    let (race, mut tried) = (Race::begin(), 0);
    while race.goes_on(tried, done < tried) {
        let content = Bytes::from(format!("{tried}"));
        let written = handle.write_file("/tmp/tree/spot/file", content, 0o600).await;
        if let Err(error) = &written {
            last = error.to_string();
        }
        tried += 1;
        done += known(written);
        known(handle.make_dir("/tmp/tree/spot/made", 0o755).await);
        known(handle.rename("/tmp/tree/spot/file", "/tmp/tree/spot/mark").await);
        known(handle.remove("/tmp/tree/spot/mark", true).await);
    }
    drop(swapper);
    // How many fell into a good moment depends on the machine; that a good one works, does not.
    assert!(done < tried, "{done} of {tried} written: there was no race; {last}");
    sh(&*handle, "cd /tmp/tree; rm -rf spot; mkdir spot").await.ok();
    let control = Bytes::from_static(b"control");
    let written = handle.write_file("/tmp/tree/spot/file", control, 0o600).await;
    written.expect("nothing is in its way now");
    let secret = "cd /home/agent/secret; ls -A; cat file mark";
    assert_eq!(
        sh(&*handle, secret).await.ok(),
        "file\nmark\nSECRET\n",
        "nothing was done there"
    );
}

/// A race against a process that a busy machine may not let run for a while.
struct Race(Instant);

impl Race {
    const ROUNDS: u32 = 1000;
    const PATIENCE: Duration = Duration::from_secs(60);

    fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether another round is wanted: all of them, and more until both sides have won once.
    fn goes_on(&self, rounds: u32, both_won: bool) -> bool {
        rounds < Self::ROUNDS || (!both_won && self.0.elapsed() < Self::PATIENCE)
    }
}

/// 1 if it was done, 0 if it was refused for a good reason.
fn known(result: Result<(), SandboxError>) -> u32 {
    match result {
        Ok(()) => 1,
        Err(SandboxError::NotFound(_) | SandboxError::Invalid(_) | SandboxError::Inside { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

async fn nothing_lends_the_guests_identity(bed: Bed) {
    let handle = bed.create().await;
    let script =
        "cd /tmp; ln -s /proc p; ln -s /proc/self/fd fds; ln -s /proc/1/root root; ln -s /proc/self/environ env;
        ln -s /dev/fd dev; ln -s ../../../../proc/self/cwd up; mkfifo fifo; sleep 1000 > /dev/null 2>&1 &
        echo $! > /tmp/pid";
    sh(&*handle, script).await.ok();
    let pid = sh(&*handle, "cat /tmp/pid").await.ok();
    let theirs = format!("/proc/{}/environ", pid.trim());
    let theirs_root = format!("/proc/{}/root/tmp/pid", pid.trim());
    let paths = [
        "/proc/self/environ",
        "/proc/1/fd/0",
        "/proc/thread-self/maps",
        "/proc/self/fd/0",
        "/proc/version",
        "/dev/stdin",
        "/dev/fd/0",
        "/tmp/p/self/environ",
        "/tmp/fds/0",
        "/tmp/root/etc/passwd",
        "/tmp/env",
        "/tmp/dev/0",
        "/tmp/up/etc/passwd",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/null",
        "/tmp/fifo",
        &theirs,
        &theirs_root,
    ];
    for path in paths {
        no_way(&*handle, path).await;
    }
    assert_eq!(sh(&*handle, "echo well").await.ok(), "well\n");
}

/// No request does anything with a path; none of them hangs.
async fn no_way(handle: &dyn SandboxHandle, path: &str) {
    let all = async {
        let read = refused(handle.read_file(path, 1 << 20).await);
        let down = refused(handle.download(path, 1 << 20).await);
        let list = refused(handle.list(path, 1, 10).await);
        let watch = refused(handle.watch(path, false).await);
        for error in [read, down, list, watch] {
            let known = matches!(error, SandboxError::Invalid(_) | SandboxError::NotFound(_));
            assert!(known, "{path}: {error}");
        }
        let below = format!("{path}/x");
        let made = refused(handle.make_dir(&below, 0o755).await);
        let wrote = refused(handle.write_file(&below, Bytes::from_static(b"x"), 0o600).await);
        let up = refused(handle.upload(&below, 0o600, 1).await);
        let renamed = refused(handle.rename("/tmp/pid", &below).await);
        let removed = refused(handle.remove(&below, true).await);
        for error in [made, wrote, up, renamed, removed] {
            let known = matches!(error, SandboxError::Invalid(_) | SandboxError::NotFound(_));
            assert!(known, "{below}: {error}");
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(20), all).await;
    done.unwrap_or_else(|_| panic!("{path} hangs"));
}
