//! Limits hold, and only where they are promised.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use bytes::Bytes;
use stockade_ports::sandbox::{Exit, SandboxError, SandboxHandle};

use crate::bed::{Bed, bytes, cases, descendants, probe, refused, request, run, sh};

cases!(
    a_full_disk_is_full_inside_only,
    processes_are_limited,
    memory_is_limited_where_promised,
    processor_time_is_limited_where_promised,
    reading_is_slowed_where_promised,
    evidence_names_what_holds,
    limits_that_were_met_are_told,
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
        // The sandbox ends as a whole, and says why. On cgroup v1 the kernel ends the process first, and its end may
        // still be told.
        assert!(
            matches!(ran.exit, Exit::SandboxGone | Exit::Signal(libc::SIGKILL)),
            "{ran:?}"
        );
        let reason = tokio::time::timeout(Duration::from_secs(10), handle.ended()).await;
        assert!(
            reason.as_ref().is_ok_and(|reason| reason.contains("memory")),
            "{reason:?}"
        );
        let neighbour = bed.create().await;
        assert_eq!(run(&*neighbour, &["echo", "well"]).await.ok(), "well\n");
    } else {
        assert!(facts.notes.iter().any(|n| n.contains("memory")), "{facts:?}");
        assert_eq!(ran.out, "256\n");
    }
}

async fn enforces(bed: &Bed, limit: &str) -> bool {
    let facts = bed.sandbox.check().await.expect("works here");
    facts.enforced_limits.iter().any(|l| l == limit)
}

async fn seconds(handle: &dyn SandboxHandle, script: &str) -> f64 {
    let begun = Instant::now();
    sh(handle, script).await.ok();
    begun.elapsed().as_secs_f64()
}

/// Seconds of processor time that the host has counted for everything below this process.
fn used() -> f64 {
    let own = i32::try_from(std::process::id()).expect("pid");
    let ticks = descendants(own).into_iter().map(|process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
        // utime and stime of proc(5), counted from after the name.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let both = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        both.sum::<f64>()
    });
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    #[allow(clippy::cast_precision_loss)]
    let hertz = hertz.expect("known").expect("set") as f64;
    ticks.sum::<f64>() / hertz
}

/// Processor time per second that a busy shell gets, as the host counts it: inside gVisor time that
/// was waited for looks like time that was used.
async fn share(handle: &dyn SandboxHandle) -> f64 {
    let busy = handle
        .exec(request(&["sh", "-c", "echo busy; while :; do :; done"]))
        .await;
    let mut busy = busy.expect("starts");
    busy.output.recv().await.expect("busy");
    let (begun, before) = (Instant::now(), used());
    tokio::time::sleep(Duration::from_secs(2)).await;
    (used() - before) / begun.elapsed().as_secs_f64()
}

async fn processor_time_is_limited_where_promised(bed: Bed) {
    let mut spec = bed.spec();
    spec.limits.cpu_millis = 50;
    let slow = bed.create_from(spec).await;
    let limited = share(&*slow).await;
    slow.destroy().await.expect("destroys");
    let fast = bed.create().await;
    let free = share(&*fast).await;
    assert!(free > 0.15, "it is busy: {free} of a core");
    if enforces(&bed, "cpu").await {
        assert!(limited < 0.1, "{limited} of a core against {free}");
    }
}

/// A file whose content is on the disk and not in the page cache.
fn cold_file(bed: &Bed, name: &str, len: usize) {
    let path = bed.dir.join("workspace").join(name);
    fs::write(&path, bytes(len)).expect("writes");
    let file = File::open(&path).expect("opens");
    file.sync_all().expect("syncs");
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("drops");
}

async fn reading_is_slowed_where_promised(bed: Bed) {
    cold_file(&bed, "one", 4 << 20);
    cold_file(&bed, "two", 4 << 20);
    let mut spec = bed.spec();
    spec.limits.io_bytes_per_second = Some(1 << 20);
    let promised = enforces(&bed, "io").await;
    let slow = bed.create_from(spec).await;
    let told = slow.evidence().limits.contains(&format!("io={}", 1 << 20));
    assert_eq!(told, promised, "{:?}", slow.evidence().limits);
    let fast = bed.create().await;
    let free = seconds(&*fast, "cat one > /dev/null").await;
    let limited = seconds(&*slow, "cat two > /dev/null").await;
    if promised {
        assert!(free < 1.5 && limited > 2.5, "{limited} s against {free} s");
    }
}

async fn evidence_names_what_holds(bed: Bed) {
    let facts = bed.sandbox.check().await.expect("works here");
    let handle = bed.create().await;
    let evidence = handle.evidence();
    assert_eq!(
        (evidence.backend.as_str(), evidence.mode),
        (bed.sandbox.name(), facts.mode)
    );
    let named: Vec<_> = evidence.limits.iter().filter_map(|l| l.split('=').next()).collect();
    // Of the limits that can be enforced here the one on I/O was not asked for.
    let asked: Vec<_> = facts.enforced_limits.iter().filter(|name| *name != "io").collect();
    assert_eq!(named, asked);
    assert!(named.contains(&"disk") && evidence.limits.contains(&format!("disk={}", 64 << 20)));
    let df = sh(&*handle, "df --output=size -B1 /tmp | tail -1").await.ok();
    assert_eq!(df.trim(), (64 << 20).to_string());
    handle
        .write_file("/tmp/x", Bytes::from_static(b"x"), 0o644)
        .await
        .expect("writes");
}

async fn limits_that_were_met_are_told(bed: Bed) {
    let mut spec = bed.spec();
    (spec.limits.pids, spec.limits.disk_bytes) = (20, 8 << 20);
    let handle = bed.create_from(spec).await;
    let met = async || {
        let hits = handle.limits_hit().await.into_iter();
        hits.map(|hit| (hit.limit, hit.value)).collect::<Vec<_>>()
    };
    sh(&*handle, "head -c 1M /dev/zero > /tmp/some").await.ok();
    assert_eq!(met().await, [], "what is within a limit meets none");
    sh(&*handle, "head -c 64M /dev/zero > /tmp/big").await;
    assert_eq!(met().await, [("disk", 8 << 20)]);
    sh(&*handle, "rm /tmp/big").await.ok();
    assert_eq!(met().await, [], "a disk is full as long as it is");
    probe(&*handle, &["forks", "100"]).await.ok();
    // Counted by a cgroup; by a kernel of the sandbox's own, or per user, nobody counts.
    let counted = enforces(&bed, "memory").await && bed.mode.shares_the_kernel();
    let expected = counted.then_some(("pids", 20));
    assert_eq!(met().await, expected.into_iter().collect::<Vec<_>>());
}
