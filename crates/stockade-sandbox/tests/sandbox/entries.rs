//! What is there, and what can be done to it: stat, list, make, rename, remove.

use stockade_ports::sandbox::{Entry, EntryKind, SandboxError};

use crate::bed::{Bed, cases, names, refused, sh};

cases!(
    entries_are_told_as_they_are,
    listings_have_depth_and_an_end,
    directories_are_made_moved_and_removed,
    deep_and_wide_trees_go,
);

pub(crate) fn paths(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.path.as_str()).collect()
}

async fn entries_are_told_as_they_are(bed: Bed) {
    let handle = bed.create().await;
    let script = "set -e; cd /tmp; mkdir -m 2750 d; printf 12345 > d/file; chmod 640 d/file; touch -d @1234.5 d/file;
        ln -s ../d/file d/link; ln -s / d/out; mkfifo d/pipe";
    sh(&*handle, script).await.ok();
    let file = handle.stat("/tmp/d/file").await.expect("is there");
    let expected = Entry {
        path: "/tmp/d/file".to_owned(),
        kind: EntryKind::File,
        size: 5,
        mode: 0o640,
        modified_ms: 1_234_500,
        target: None,
    };
    assert_eq!(file, expected);
    let dir = handle.stat("/tmp/d").await.expect("is there");
    assert_eq!((dir.kind, dir.mode), (EntryKind::Directory, 0o2750));
    let link = handle.stat("/tmp/d/link").await.expect("is there");
    assert_eq!(
        (link.kind, link.target.as_deref()),
        (EntryKind::Link, Some("../d/file"))
    );
    let pipe = handle.stat("/tmp/d/pipe").await.expect("is there");
    assert_eq!(pipe.kind, EntryKind::Other);
    for path in ["/", "/tmp", "/workspace", "/usr/bin"] {
        assert_eq!(handle.stat(path).await.expect(path).kind, EntryKind::Directory);
    }
    let error = refused(handle.stat("/tmp/none").await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    let error = refused(handle.stat("/tmp/d/../d/file").await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    let error = refused(handle.stat("/tmp/d/out/etc/passwd").await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
}

async fn listings_have_depth_and_an_end(bed: Bed) {
    let handle = bed.create().await;
    sh(
        &*handle,
        "set -e; cd /tmp; mkdir -p d/a/b/c d/e; : > d/a/f; : > d/a/b/g; ln -s / d/out",
    )
    .await
    .ok();
    let listing = handle.list("/tmp/d", 1, 100).await.expect("lists");
    assert_eq!(paths(&listing.entries), ["/tmp/d/a", "/tmp/d/e", "/tmp/d/out"]);
    assert!(!listing.truncated);
    let listing = handle.list("/tmp/d/", 3, 100).await.expect("lists");
    let all = ["a", "a/b", "a/b/c", "a/b/g", "a/f", "e", "out"].map(|name| format!("/tmp/d/{name}"));
    assert_eq!(paths(&listing.entries), all);
    // The upper levels come first when there are too many.
    let listing = handle.list("/tmp/d", 3, 3).await.expect("lists");
    assert_eq!(paths(&listing.entries), ["/tmp/d/a", "/tmp/d/e", "/tmp/d/out"]);
    assert!(listing.truncated);
    let listing = handle.list("/tmp/d", 3, 7).await.expect("lists");
    assert!(!listing.truncated && listing.entries.len() == 7);
    sh(&*handle, "mkdir /tmp/many; cd /tmp/many; seq 1 3000 | xargs touch")
        .await
        .ok();
    let listing = handle.list("/tmp/many", 9, 1_000_000).await.expect("lists");
    assert_eq!((listing.entries.len(), listing.truncated), (3000, false));
    // The root's, without what is in /proc.
    let listing = handle.list("/", 2, 100_000).await.expect("lists");
    assert!(paths(&listing.entries).contains(&"/proc"));
    assert!(!paths(&listing.entries).iter().any(|path| path.starts_with("/proc/")));
    for path in ["/tmp/d/out", "/tmp/d/a/f", "/proc", "/proc/self/fd", "/dev/fd"] {
        let error = refused(handle.list(path, 1, 10).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{path}: {error}");
    }
    let error = refused(handle.list("/tmp/d", 0, 10).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    let error = refused(handle.list("/tmp/none", 1, 10).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
}

async fn directories_are_made_moved_and_removed(bed: Bed) {
    let handle = bed.create().await;
    handle.make_dir("/workspace/x/y/z", 0o750).await.expect("makes");
    handle.make_dir("/workspace/x/y/z", 0o700).await.expect("is there");
    handle.make_dir("/workspace", 0o700).await.expect("is there");
    for (path, mode) in [("/workspace/x/y/z", 0o750), ("/workspace/x", 0o755)] {
        assert_eq!(handle.stat(path).await.expect(path).mode, mode);
    }
    sh(
        &*handle,
        "cd /workspace; echo 1 > one; echo 2 > two; ln -s x link; mkdir full; : > full/f",
    )
    .await
    .ok();
    handle
        .rename("/workspace/one", "/workspace/two")
        .await
        .expect("replaces");
    assert_eq!(
        sh(&*handle, "cat /workspace/two; test -e /workspace/one; echo $?")
            .await
            .ok(),
        "1\n1\n"
    );
    handle
        .rename("/workspace/link", "/workspace/other")
        .await
        .expect("the link itself");
    handle.remove("/workspace/other", false).await.expect("the link itself");
    assert_eq!(names(&*handle, "/workspace/x").await, "y\n");
    let error = refused(handle.remove("/workspace/full", false).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    handle
        .remove("/workspace/full", true)
        .await
        .expect("with what is in it");
    let error = refused(handle.remove("/workspace/full", true).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    handle.remove("/workspace/src", true).await.expect("what the host gave");
    handle.remove("/workspace/x", true).await.expect("empty ones");
    // Not through links, not what everything stands on, not what is given.
    sh(&*handle, "mkdir /tmp/t; : > /tmp/t/f; ln -s /tmp/t /tmp/l")
        .await
        .ok();
    for path in [
        "/tmp/l/f",
        "/workspace",
        "/tmp",
        "/",
        "/etc",
        "/opt/agents/probe",
        "/proc/self/fd/0",
    ] {
        let error = refused(handle.remove(path, true).await);
        let known = matches!(error, SandboxError::Inside { .. } | SandboxError::Invalid(_));
        assert!(known, "{path}: {error}");
    }
    for (from, to) in [("/tmp/l/f", "/tmp/g"), ("/tmp/t/f", "/tmp/l/g"), ("/tmp/t/f", "/etc/g")] {
        let error = refused(handle.rename(from, to).await);
        let known = matches!(error, SandboxError::Inside { .. } | SandboxError::Invalid(_));
        assert!(known, "{from} {to}: {error}");
    }
    let error = refused(handle.make_dir("/tmp/l/new", 0o755).await);
    assert!(error.to_string().contains("a link to /tmp/t"), "{error}");
    let error = refused(handle.make_dir("/tmp/t/f", 0o755).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    assert_eq!(names(&*handle, "/tmp/t").await, "f\n");
    assert_eq!(names(&*handle, "/workspace").await, "README\ntwo\n");
}

async fn deep_and_wide_trees_go(bed: Bed) {
    let handle = bed.create().await;
    // Deeper than any path, and than what may be open at once. gVisor goes no deeper than a path.
    let depth = if bed.mode.shares_the_kernel() { 1500 } else { 120 };
    let script = format!(
        "cd /tmp; mkdir deep wide; cd deep; i=0
        while [ $i -lt {depth} ]; do mkdir directory-with-a-name; cd ./directory-with-a-name; : > f; i=$((i+1)); done
        cd /tmp/wide; seq 1 5000 | xargs touch"
    );
    sh(&*handle, &script).await.ok();
    let listing = handle
        .list("/tmp/deep", 10_000, 10_000)
        .await
        .expect("lists what has a path");
    assert!(listing.truncated == (depth > 200) && listing.entries.len() > 100);
    for path in ["/tmp/deep", "/tmp/wide"] {
        handle.remove(path, true).await.expect(path);
    }
    assert_eq!(names(&*handle, "/tmp").await, "");
}
