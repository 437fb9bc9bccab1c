//! Being told what changes.

use std::{collections::BTreeSet, time::Duration};

use stockade_ports::sandbox::{Change, Kernel, SandboxError, SandboxHandle, Watched};
use tokio::time::timeout;

use crate::bed::{Bed, cases, refused, sh};

cases!(
    changes_are_told,
    what_appears_below_is_watched_too,
    a_directory_that_moves_is_still_known,
    a_watch_ends_with_its_directory_and_its_owner,
    watches_have_limits_and_reasons,
    too_many_changes_are_lost_and_said_so,
);

/// Changes until one tells of `last`.
async fn until(watched: &mut Watched, last: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    loop {
        match timeout(Duration::from_secs(20), watched.changes.recv()).await {
            Ok(Some(change)) => {
                let over = change.path.ends_with(last);
                changes.push(change);
                if over {
                    return changes;
                }
            }
            other => panic!("waiting for {last}: {other:?} after {changes:?}"),
        }
    }
}

fn told(changes: &[Change]) -> Vec<(&str, &str)> {
    changes.iter().map(|c| (c.what, c.path.as_str())).collect()
}

async fn do_in(handle: &dyn SandboxHandle, script: &str) {
    sh(handle, &format!("set -e; {script}")).await.ok();
}

async fn changes_are_told(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, "mkdir -p /tmp/w/sub; echo x > /tmp/w/old").await;
    let mut watched = handle.watch("/tmp/w", false).await.expect("watches");
    let script = "cd /tmp/w; : > new; echo more >> old; mv old other; rm new; : > sub/unseen; : > end";
    do_in(&*handle, script).await;
    let changes = until(&mut watched, "/end").await;
    let expected = [
        ("created", "/tmp/w/new"),
        ("modified", "/tmp/w/old"),
        ("moved", "/tmp/w/old"),
        ("created", "/tmp/w/other"),
        ("removed", "/tmp/w/new"),
        ("created", "/tmp/w/end"),
    ];
    assert_eq!(told(&changes), expected);
}

async fn what_appears_below_is_watched_too(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, "mkdir -p /workspace/w/a/b").await;
    let mut watched = handle.watch("/workspace/w", true).await.expect("watches");
    // All at once: most of it is there before anybody can watch it.
    let script = "cd /workspace/w; echo 1 > a/b/one; mkdir -p c/d/e; : > c/d/e/two; : > c/three; : > end";
    do_in(&*handle, script).await;
    let wanted: BTreeSet<_> = ["a/b/one", "c", "c/d", "c/d/e", "c/d/e/two", "c/three", "end"]
        .into_iter()
        .map(|path| format!("/workspace/w/{path}"))
        .collect();
    let mut created = Vec::new();
    while created.iter().cloned().collect::<BTreeSet<_>>() != wanted {
        let change = timeout(Duration::from_secs(20), watched.changes.recv()).await;
        let change = change.unwrap_or_else(|_| panic!("{created:?}")).expect("a change");
        if change.what == "created" {
            created.push(change.path);
        }
    }
    assert_eq!(created.len(), wanted.len(), "each once: {created:?}");
    // And goes on being watched.
    do_in(&*handle, "echo 2 >> /workspace/w/c/d/e/two; : > /workspace/w/c/d/last").await;
    let changes = until(&mut watched, "/last").await;
    assert!(
        told(&changes).contains(&("modified", "/workspace/w/c/d/e/two")),
        "{changes:?}"
    );
}

async fn a_directory_that_moves_is_still_known(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, "mkdir -p /tmp/w/a/b /tmp/w/z /tmp/elsewhere").await;
    let mut watched = handle.watch("/tmp/w", true).await.expect("watches");
    do_in(&*handle, "cd /tmp/w; mv a z/c; : > z/c/b/inside").await;
    let changes = until(&mut watched, "/inside").await;
    assert_eq!(
        told(&changes),
        [
            ("moved", "/tmp/w/a"),
            ("created", "/tmp/w/z/c"),
            ("created", "/tmp/w/z/c/b/inside")
        ]
    );
    // One that leaves is not watched any more.
    do_in(
        &*handle,
        "cd /tmp/w; mv z/c ../elsewhere/c; : > ../elsewhere/c/b/unseen; : > end",
    )
    .await;
    let changes = until(&mut watched, "/end").await;
    assert_eq!(told(&changes), [("moved", "/tmp/w/z/c"), ("created", "/tmp/w/end")]);
}

async fn too_many_changes_are_lost_and_said_so(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, "mkdir -p /tmp/w/sub").await;
    let mut watched = handle.watch("/tmp/w", true).await.expect("watches");
    // Nobody listens: more than credit, queues and the kernel's 16,384 events.
    let script = "cd /tmp/w/sub; for n in 1 2; do seq 1 9000 | xargs touch; seq 1 9000 | xargs rm; done";
    do_in(&*handle, script).await;
    assert_eq!(sh(&*handle, "echo well").await.ok(), "well\n");
    // gVisor queues without an end, in the sandbox's own memory: all of them come.
    let loses = bed.sandbox.capabilities().kernel == Kernel::Shared;
    let all = 4 * 9000;
    let mut seen = 0;
    while loses || seen < all {
        let change = timeout(Duration::from_secs(20), watched.changes.recv()).await;
        let change = change
            .unwrap_or_else(|_| panic!("no word of the loss after {seen}"))
            .expect("goes on");
        seen += 1;
        if change.what == "lost" {
            assert!(loses, "after {seen}");
            assert_eq!(change.path, "/tmp/w");
            break;
        }
        assert!(!loses || seen < all, "all of them came");
    }
    // It goes on, below as well.
    do_in(&*handle, ": > /tmp/w/sub/after").await;
    until(&mut watched, "/after").await;
}

async fn a_watch_ends_with_its_directory_and_its_owner(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, "mkdir /tmp/w").await;
    let mut watched = handle.watch("/tmp/w", true).await.expect("watches");
    do_in(&*handle, "rmdir /tmp/w").await;
    let changes = until(&mut watched, "/tmp/w").await;
    assert_eq!(told(&changes), [("removed", "/tmp/w")]);
    let end = timeout(Duration::from_secs(20), watched.changes.recv()).await;
    assert_eq!(end.expect("ends"), None);
    // A dropped watch frees its place: there are sixteen.
    for _ in 0..50 {
        drop(handle.watch("/tmp", false).await.expect("watches"));
    }
    // The sandbox's end is the watch's.
    let mut watched = handle.watch("/tmp", false).await.expect("watches");
    handle.destroy().await.expect("destroys");
    assert_eq!(watched.changes.recv().await, None);
}

async fn watches_have_limits_and_reasons(bed: Bed) {
    let handle = bed.create().await;
    do_in(&*handle, ": > /tmp/file; ln -s /etc /tmp/out; ln -s /proc /tmp/proc").await;
    for path in ["/tmp/file", "/tmp/out", "/tmp/proc", "/proc", "/proc/self/fd", "tmp"] {
        let error = refused(handle.watch(path, true).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{path}: {error}");
    }
    let error = refused(handle.watch("/tmp/none", true).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    let mut kept = Vec::new();
    let error = loop {
        match handle.watch("/tmp", false).await {
            Ok(watched) => kept.push(watched),
            Err(error) => break error,
        }
        assert!(kept.len() <= 16, "it has an end");
    };
    assert!(error.to_string().contains("watched already"), "{error}");
    assert_eq!(kept.len(), 16);
}
