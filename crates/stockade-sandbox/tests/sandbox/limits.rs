//! Limits hold, and only where they are promised.

use bytes::Bytes;
use stockade_ports::sandbox::{Exit, Sandbox, SandboxError};

use crate::bed::{Bed, bytes, cases, cgroups_of, probe, refused, run, sh};

cases!(
    a_full_disk_is_full_inside_only,
    processes_are_limited,
    memory_is_limited_where_promised,
    evidence_names_what_holds,
);

async fn a_full_disk_is_full_inside_only(bed: Bed) {
    let mut spec = bed.spec();
    spec.limits.disk_bytes = 8 << 20;
    let handle = bed.create_from(spec).await;
    handle
        .write_file("/tmp/some", bytes(1 << 20), 0o644)
        .await
        .expect("there is room");
    for place in ["/tmp", "/home/agent", "/workspace", "/dev/shm", "/var/tmp"] {
        let ran = sh(
            &*handle,
            &format!("dd if=/dev/zero of={place}/big bs=1M count=64; rm {place}/big"),
        )
        .await;
        assert!(ran.err.contains("No space left"), "{place}: {ran:?}");
    }
    let error = refused(handle.write_file("/workspace/big", bytes(9 << 20), 0o644).await);
    assert!(matches!(error, SandboxError::DiskFull(_)), "{error}");
    // Nothing half-written takes up space afterwards.
    handle
        .write_file("/workspace/fits", bytes(5 << 20), 0o644)
        .await
        .expect("there is room again");
    let ran = sh(
        &*handle,
        "i=0; while : > /tmp/f$i; do i=$((i+1)); [ $i -gt 100000 ] && exit 9; done; exit 0",
    )
    .await;
    assert_ne!(ran.exit, Exit::Code(9), "files are limited in number");
}

async fn processes_are_limited(bed: Bed) {
    let mut spec = bed.spec();
    spec.limits.pids = 20;
    let handle = bed.create_from(spec).await;
    let made: u32 = probe(&*handle, &["forks", "100"])
        .await
        .ok()
        .trim()
        .parse()
        .expect("number");
    assert!((5..20).contains(&made), "{made}");
    let roomy = bed.create().await;
    assert_eq!(probe(&*roomy, &["forks", "100"]).await.ok(), "100\n");
}

async fn memory_is_limited_where_promised(bed: Bed) {
    let facts = bed.sandbox.check().await.expect("works here");
    let enforced = facts.enforced_limits.iter().any(|l| l == "memory");
    let mut spec = bed.spec();
    spec.limits.memory_bytes = 64 << 20;
    let handle = bed.create_from(spec).await;
    assert_eq!(probe(&*handle, &["eat", "16"]).await.ok(), "16\n");
    let ran = probe(&*handle, &["eat", "256"]).await;
    if enforced {
        assert_eq!(ran.exit, Exit::Signal(9), "{ran:?}");
        assert_eq!(run(&*handle, &["echo", "well"]).await.ok(), "well\n");
        assert!(!cgroups_of(std::process::id()).is_empty());
    } else {
        assert!(facts.notes.iter().any(|n| n.contains("memory")), "{facts:?}");
        assert_eq!(ran.out, "256\n");
    }
}

async fn evidence_names_what_holds(bed: Bed) {
    let facts = bed.sandbox.check().await.expect("works here");
    let handle = bed.create().await;
    let evidence = handle.evidence();
    assert_eq!((evidence.backend.as_str(), evidence.mode), ("native", facts.mode));
    let named: Vec<_> = evidence.limits.iter().filter_map(|l| l.split('=').next()).collect();
    assert_eq!(named, facts.enforced_limits);
    assert!(named.contains(&"disk") && evidence.limits.contains(&format!("disk={}", 64 << 20)));
    let df = sh(&*handle, "df --output=size -B1 /tmp | tail -1").await.ok();
    assert_eq!(df.trim(), (64 << 20).to_string());
    handle
        .write_file("/tmp/x", Bytes::from_static(b"x"), 0o644)
        .await
        .expect("writes");
}
