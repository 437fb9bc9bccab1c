//! Files in and out, and the directories a sandbox is given.

use std::{fs, os::unix::fs::PermissionsExt};

use bytes::Bytes;
use stockade_ports::sandbox::{Sandbox, SandboxError};
use stockade_sandbox::NativeSandbox;

use crate::bed::{Bed, bytes, cases, config, names, prove_closed, refused, run, sh};

cases!(
    files_round_trip,
    reads_have_limits_and_reasons,
    a_write_replaces_and_never_follows,
    the_host_workspace_is_never_written,
    given_directories_are_read_only,
    an_empty_workspace_is_writable;
    native: a_copied_workspace_behaves_the_same,
);

async fn files_round_trip(bed: Bed) {
    let handle = bed.create().await;
    let content = bytes(3_000_001);
    let path = "/workspace/new/deep/file";
    handle.write_file(path, content.clone(), 0o640).await.expect("writes");
    let back = handle.read_file(path, 10_000_000).await.expect("reads");
    assert!(back == content);
    assert_eq!(
        run(&*handle, &["find", path, "-printf", "%m %u\\n"]).await.ok(),
        "640 agent\n"
    );
    handle.write_file(path, Bytes::new(), 0o600).await.expect("empties");
    assert_eq!(handle.read_file(path, 0).await.expect("reads"), Bytes::new());
    assert_eq!(names(&*handle, "/workspace/new/deep").await, "file\n");
}

async fn reads_have_limits_and_reasons(bed: Bed) {
    let handle = bed.create().await;
    handle.write_file("/tmp/ten", bytes(10), 0o644).await.expect("writes");
    assert_eq!(handle.read_file("/tmp/ten", 10).await.expect("fits").len(), 10);
    let error = refused(handle.read_file("/tmp/ten", 9).await);
    assert!(matches!(error, SandboxError::TooLarge { limit: 9, .. }), "{error}");
    let error = refused(handle.read_file("/tmp/none", 9).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    sh(
        &*handle,
        "mkfifo /tmp/fifo; ln -s ten /tmp/link; ln -s /etc/shadow /tmp/shadow",
    )
    .await
    .ok();
    assert_eq!(
        handle.read_file("/tmp/link", 10).await.expect("a link inside").len(),
        10
    );
    let error = refused(handle.read_file("/tmp/shadow", 1 << 20).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "it leads out: {error}");
    // /proc/self would be the Guest's own.
    for path in [
        "/tmp/fifo",
        "/tmp",
        "/proc/self/environ",
        "/proc/1/mem",
        "tmp/ten",
        "",
        "/tmp/\0",
    ] {
        let error = refused(handle.read_file(path, 1 << 20).await);
        let invalid = matches!(error, SandboxError::Invalid(_) | SandboxError::Inside { .. });
        assert!(invalid, "{path}: {error}");
    }
}

async fn a_write_replaces_and_never_follows(bed: Bed) {
    let handle = bed.create().await;
    sh(
        &*handle,
        "echo target > /tmp/target; ln -s target /tmp/link; mkdir /tmp/dir",
    )
    .await
    .ok();
    handle
        .write_file("/tmp/link", Bytes::from_static(b"new"), 0o644)
        .await
        .expect("writes");
    assert_eq!(run(&*handle, &["cat", "/tmp/target"]).await.ok(), "target\n");
    assert_eq!(
        run(&*handle, &["find", "/tmp/link", "-printf", "%y\\n"]).await.ok(),
        "f\n"
    );
    for path in [
        "/tmp/dir",
        "/etc/passwd",
        "/run/stockade/base.git/HEAD",
        "/proc/self/mem",
    ] {
        let error = refused(handle.write_file(path, Bytes::from_static(b"x"), 0o644).await);
        let known = matches!(error, SandboxError::Inside { .. } | SandboxError::Invalid(_));
        assert!(known, "{path}: {error}");
    }
    assert_eq!(names(&*handle, "/tmp").await, "dir\nlink\ntarget\n");
}

const CHANGE: &str = "set -e; cat README; echo changed > README; rm -r src; mkdir src; echo more > src/lib;
    mkdir a; mv a b; mv src/lib b/; rmdir src; ln -s README link; chmod 755 README; ls";

async fn the_host_workspace_is_never_written(bed: Bed) {
    let handle = bed.create().await;
    let out = sh(&*handle, CHANGE).await.ok();
    assert_eq!(out, "originalREADME\nb\nlink\n");
    unchanged(&bed);
}

fn unchanged(bed: &Bed) {
    let workspace = bed.dir.join("workspace");
    let mut names: Vec<_> = fs::read_dir(&workspace)
        .expect("workspace")
        .map(|e| e.expect("entry").file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["README", "src"]);
    assert_eq!(fs::read(workspace.join("README")).expect("readme"), b"original");
    assert_eq!(fs::read(workspace.join("src/lib")).expect("lib"), b"code");
    let mode = fs::metadata(workspace.join("README")).expect("meta").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

async fn a_copied_workspace_behaves_the_same(bed: Bed) {
    let mut config = config(&bed.dir);
    config.copy_workspace = true;
    let sandbox = NativeSandbox::new(config);
    let fresh = sandbox.create(bed.spec()).await.unwrap_or_else(|e| panic!("{e}"));
    let (handle, _) = prove_closed(fresh).await.expect("proved");
    let out = sh(&*handle, CHANGE).await.ok();
    assert_eq!(out, "originalREADME\nb\nlink\n");
    unchanged(&bed);
    fs::write(bed.dir.join("workspace/big"), vec![1; 2 << 20]).expect("a larger one");
    let mut spec = bed.spec();
    spec.limits.disk_bytes = 1 << 20;
    let error = refused(sandbox.create(spec).await);
    assert!(error.to_string().contains("disk limit"), "{error}");
}

async fn given_directories_are_read_only(bed: Bed) {
    let handle = bed.create().await;
    let head = handle
        .read_file("/run/stockade/base.git/HEAD", 100)
        .await
        .expect("readable");
    assert_eq!(head, Bytes::from_static(b"ref: refs/heads/main"));
    for place in ["/run/stockade/base.git", "/opt/agents", "/usr", "/etc", "/", "/run"] {
        let ran = run(&*handle, &["touch", &format!("{place}/x")]).await;
        // gVisor asks whose the directory is before it asks whether it can be written.
        let denied = !bed.mode.shares_the_kernel() && ran.err.contains("Permission denied");
        assert!(denied || ran.err.contains("Read-only"), "{place}: {ran:?}");
    }
    // Renaming a directory above a mount would let the agent put a false one in its place.
    for script in [
        "mv /run/stockade /run/x",
        "mv /run/stockade/base.git /run/x",
        "rm /run/stockade/base.git/HEAD",
    ] {
        assert_ne!(
            sh(&*handle, script).await.exit,
            stockade_ports::sandbox::Exit::Code(0),
            "{script}"
        );
    }
    for place in ["/tmp", "/home/agent", "/workspace", "/var/tmp", "/dev/shm"] {
        run(&*handle, &["touch", &format!("{place}/x")]).await.ok();
    }
}

async fn an_empty_workspace_is_writable(bed: Bed) {
    let mut spec = bed.spec();
    (spec.workspace, spec.base_git, spec.agents_dir) = (None, None, None);
    let handle = bed.create_from(spec).await;
    assert_eq!(sh(&*handle, "ls -A; echo x > y; cat y").await.ok(), "x\n");
}
