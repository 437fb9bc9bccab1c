//! Files piece by piece, in both directions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stockade_ports::sandbox::{SandboxError, SandboxHandle};
use tokio::time::timeout;

use crate::bed::{Bed, bytes, cases, names, refused, run, sh};

cases!(
    a_file_goes_in_and_out_in_pieces,
    a_slow_reader_holds_up_nobody,
    downloads_have_limits_and_reasons,
    uploads_have_limits_and_leave_nothing,
    many_transfers_at_once,
);

async fn up(handle: &dyn SandboxHandle, path: &str, content: &Bytes) {
    let upload = handle.upload(path, 0o640, 1 << 30).await.expect("begins");
    for piece in content.chunks(100_001) {
        assert!(upload.write(content.slice_ref(piece)).await);
    }
    upload.finish().await.expect("whole");
}

async fn down(handle: &dyn SandboxHandle, path: &str, limit: u64) -> Result<Vec<u8>, SandboxError> {
    let mut download = handle.download(path, limit).await?;
    let mut content = Vec::new();
    while let Some(piece) = download.pieces.recv().await {
        content.extend_from_slice(&piece?);
    }
    Ok(content)
}

async fn a_file_goes_in_and_out_in_pieces(bed: Bed) {
    let handle = bed.create().await;
    let content = bytes(20_000_001);
    let path = "/workspace/new/deep/file";
    up(&*handle, path, &content).await;
    assert!(down(&*handle, path, 20_000_001).await.expect("reads") == content);
    let entry = handle.stat(path).await.expect("is there");
    assert_eq!((entry.mode, entry.size), (0o640, 20_000_001));
    up(&*handle, path, &Bytes::new()).await;
    assert_eq!(down(&*handle, path, 0).await.expect("reads"), b"");
    assert_eq!(names(&*handle, "/workspace/new/deep").await, "file\n");
}

async fn a_slow_reader_holds_up_nobody(bed: Bed) {
    let handle = bed.create().await;
    let content = bytes(30_000_000);
    up(&*handle, "/tmp/large", &content).await;
    let mut download = handle.download("/tmp/large", 1 << 30).await.expect("begins");
    let first = download.pieces.recv().await.expect("a piece").expect("bytes");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(run(&*handle, &["echo", "hi"]).await.ok(), "hi\n");
        handle.stat("/tmp/large").await.expect("answers");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Neither side has taken in what nobody asked for: half a mebibyte of credit, queues, pipes.
    let guest = guest_kilobytes(&*handle).await;
    assert!(guest < 8 << 10, "the Guest holds {guest} KiB");
    let mut waiting = 0;
    while let Ok(piece) = download.pieces.try_recv() {
        waiting += piece.expect("bytes").len();
    }
    assert!(waiting <= 1 << 20, "{waiting} bytes were waiting");
    // It goes on as it is read.
    let mut content_back = first.len() + waiting;
    while let Some(piece) = download.pieces.recv().await {
        content_back += piece.expect("bytes").len();
    }
    assert_eq!(content_back, content.len());
    // One that is dropped is given up.
    let given_up = handle.download("/tmp/large", 1 << 30).await.expect("begins");
    drop(given_up);
    assert_eq!(run(&*handle, &["echo", "hi"]).await.ok(), "hi\n");
}

/// Resident memory of pid 1, as its status tells everybody.
async fn guest_kilobytes(handle: &dyn SandboxHandle) -> u64 {
    let out = sh(handle, "grep VmRSS /proc/1/status").await.ok();
    let number = out.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("{out}"))
}

async fn downloads_have_limits_and_reasons(bed: Bed) {
    let handle = bed.create().await;
    sh(
        &*handle,
        "echo 123456789 > /tmp/ten; mkfifo /tmp/fifo; ln -s ten /tmp/link",
    )
    .await
    .ok();
    assert_eq!(down(&*handle, "/tmp/link", 10).await.expect("a link inside").len(), 10);
    let error = refused(handle.download("/tmp/ten", 9).await);
    assert!(matches!(error, SandboxError::TooLarge { limit: 9, .. }), "{error}");
    let error = refused(handle.download("/tmp/none", 9).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    for path in [
        "/tmp/fifo",
        "/tmp",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
        "tmp",
    ] {
        let error = refused(
            timeout(Duration::from_secs(5), handle.download(path, 9))
                .await
                .expect("at once"),
        );
        assert!(matches!(error, SandboxError::Invalid(_)), "{path}: {error}");
    }
    // A file that grows over the limit on its way is an error at its end, not a longer file.
    let grown = "head -c 1000000 /dev/zero > /tmp/grows";
    sh(&*handle, grown).await.ok();
    let mut download = handle.download("/tmp/grows", 1_000_000).await.expect("begins");
    sh(&*handle, "head -c 1000000 /dev/zero >> /tmp/grows").await.ok();
    let mut got = 0;
    let error = loop {
        match download.pieces.recv().await {
            Some(Ok(piece)) => got += piece.len(),
            Some(Err(error)) => break error,
            None => panic!("{got} bytes and no error"),
        }
    };
    assert!(
        matches!(error, SandboxError::TooLarge { .. }) && got <= 1_000_000,
        "{error}"
    );
}

async fn uploads_have_limits_and_leave_nothing(bed: Bed) {
    let handle = bed.create().await;
    sh(&*handle, "mkdir /tmp/d; echo old > /tmp/d/file").await.ok();
    // One too many, whoever counts.
    let upload = handle.upload("/tmp/d/file", 0o600, 10).await.expect("begins");
    assert!(upload.write(bytes(10)).await);
    upload.write(bytes(1)).await;
    let error = refused(upload.finish().await);
    assert!(matches!(error, SandboxError::TooLarge { limit: 10, .. }), "{error}");
    // Given up in the middle, with directories of its own.
    let upload = handle.upload("/tmp/d/a/b/c", 0o600, 1 << 30).await.expect("begins");
    assert!(upload.write(bytes(1 << 20)).await);
    assert!(upload.write(bytes(1 << 20)).await);
    drop(upload);
    // The disk is full.
    let upload = handle.upload("/tmp/d/large", 0o600, 1 << 40).await.expect("begins");
    let mut written = 0;
    if bed.sandbox.capabilities().limits.contains(&"disk") {
        while upload.write(bytes(1 << 20)).await {
            written += 1;
            assert!(written < 200, "it ends where the disk does");
        }
        let error = refused(upload.finish().await);
        assert!(matches!(error, SandboxError::DiskFull(_)), "{error}");
    } else {
        drop(upload);
    }
    for (path, error) in [
        ("/etc/x", refused(handle.upload("/etc/x", 0o600, 1).await)),
        (
            "/proc/self/mem",
            refused(handle.upload("/proc/self/mem", 0o600, 1).await),
        ),
        ("/tmp", refused(handle.upload("/tmp", 0o600, 1).await)),
    ] {
        let known = matches!(error, SandboxError::Inside { .. } | SandboxError::Invalid(_));
        assert!(known, "{path}: {error}");
    }
    let mut listed = String::new();
    for _ in 0..100 {
        listed = names(&*handle, "/tmp/d").await + &sh(&*handle, "cat /tmp/d/file").await.ok();
        if listed == "file\nold\n" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{listed}");
}

async fn many_transfers_at_once(bed: Bed) {
    let handle = bed.create().await;
    let content = bytes(1_000_000);
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (handle, content) = (handle.clone(), content.clone());
            tokio::spawn(async move {
                let path = format!("/tmp/many/{n}");
                up(&*handle, &path, &content).await;
                let back = down(&*handle, &path, 1 << 30).await.expect("reads");
                assert!(back == content);
            })
        })
        .collect();
    for task in tasks {
        timeout(Duration::from_secs(60), task)
            .await
            .expect("ends")
            .expect("fine");
    }
}
