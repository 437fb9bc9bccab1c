//! Sandboxes that were made before their run are like any other, and nobody's twice.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stockade_ports::sandbox::{Boundary, Exit, Sandbox, SandboxHandle, SandboxSpec};
use stockade_sandbox::{NativeConfig, NativeSandbox};
use tokio::time::{sleep, timeout};

use crate::bed::{
    Bed, HostProcess, cases, config, descendants, eventually, probe, processes, prove_closed, refused, run, sh,
    test_command,
};

cases!(
    ;native:
    a_claimed_sandbox_is_like_one_made_for_its_run,
    a_claim_binds_the_run_and_its_limits,
    nothing_is_handed_out_twice,
    a_run_of_another_kind_gets_a_sandbox_of_its_own,
    a_dead_one_is_never_handed_out,
    a_cancelled_claim_leaves_nothing,
    the_pool_dies_with_its_owner,
    helper_with_a_pool,
    a_killed_zygote_is_replaced,
);

const ZYGOTE: &str = "stockade-zygote";

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("pid")
}

fn of_sandboxes() -> Vec<HostProcess> {
    let mut all = descendants(own_pid());
    all.retain(|process| process.name != ZYGOTE);
    all
}

/// A backend whose pool is filled with what `bed.spec()` fits.
async fn pool(bed: &Bed, size: u32) -> NativeSandbox {
    let backend = NativeSandbox::new(NativeConfig {
        warm: size,
        ..config(&bed.dir)
    });
    // The pool learns the kind from the first who asks.
    drop(backend.create(bed.spec()).await.expect("creates"));
    filled(&backend, size).await;
    backend
}

async fn filled(backend: &NativeSandbox, size: u32) {
    let size = usize::try_from(size).expect("small");
    let full = async {
        // What was there may be of a kind that is about to be replaced.
        sleep(Duration::from_millis(50)).await;
        while backend.warm() != size {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), full).await.expect("the pool fills up");
}

async fn make(backend: &NativeSandbox, spec: SandboxSpec) -> (Arc<dyn SandboxHandle>, Boundary) {
    let fresh = backend.create(spec).await.unwrap_or_else(|e| panic!("{e}"));
    prove_closed(fresh).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Everything a process can see of its mounts, limits and rights, without what differs anyway.
async fn looks(handle: &dyn SandboxHandle) -> String {
    let script = "cut -d' ' -f4- /proc/self/mountinfo | sort; ls -laR --time-style=+ /mnt /run /opt /home /workspace;
        grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status;
        ulimit -a; umask; cat /proc/self/uid_map; df -P --output=target,size,itotal / /tmp /workspace; names=$(ps -e -o comm=); echo \"$names\" | sort";
    sh(handle, script).await.ok() + &probe(handle, &["calls"]).await.ok()
}

async fn a_claimed_sandbox_is_like_one_made_for_its_run(bed: Bed) {
    let backend = pool(&bed, 1).await;
    for (workspace, base_git) in [(true, true), (false, false)] {
        let mut spec = bed.spec();
        spec.workspace = spec.workspace.filter(|_| workspace);
        spec.base_git = spec.base_git.filter(|_| base_git);
        let (warm, _door) = make(&backend, spec.clone()).await;
        let (cold, _door) = make(&NativeSandbox::new(config(&bed.dir)), spec).await;
        assert!(warm.evidence().warm && !cold.evidence().warm);
        assert_eq!(warm.evidence().limits, cold.evidence().limits);
        let user = |text: String| {
            text.lines()
                .filter(|line| !line.contains("1879"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        let (warm, cold) = (user(looks(&*warm).await), user(looks(&*cold).await));
        assert!(warm == cold, "warm:\n{warm}\n\ncold:\n{cold}");
        filled(&backend, 1).await;
    }
}

async fn a_claim_binds_the_run_and_its_limits(bed: Bed) {
    let backend = pool(&bed, 1).await;
    let mut spec = bed.spec();
    spec.limits.memory_bytes = 300 << 20;
    spec.limits.cpu_millis = 700;
    spec.limits.disk_bytes = 9 << 20;
    // Measured like any other: wrong limits would not be released.
    let (handle, _door) = make(&backend, spec).await;
    let evidence = handle.evidence();
    assert!(evidence.warm, "{evidence:?}");
    assert!(evidence.limits.contains(&format!("disk={}", 9 << 20)), "{evidence:?}");
    assert_eq!(sh(&*handle, "cat /workspace/README").await.ok(), "original");
    assert_eq!(
        sh(&*handle, "cat /run/stockade/base.git/HEAD").await.ok(),
        "ref: refs/heads/main"
    );
    sh(
        &*handle,
        "echo changed > /workspace/README && rm -r /workspace/src && mkdir /workspace/src",
    )
    .await
    .ok();
    let original = std::fs::read_to_string(bed.dir.join("workspace/README")).expect("reads");
    assert_eq!(original, "original", "the host's directory is never written");
    let full = sh(&*handle, "head -c 12M /dev/zero > /tmp/big").await;
    assert_ne!(full.exit, Exit::Code(0), "the bound is the run's, not the pool's");
    sh(&*handle, "head -c 5M /dev/zero > /tmp/big").await.ok();
    let refusal = sh(
        &*handle,
        "echo x > /run/stockade/base.git/HEAD; echo x > /opt/agents/probe",
    )
    .await;
    assert_ne!(refusal.exit, Exit::Code(0));
}

async fn nothing_is_handed_out_twice(bed: Bed) {
    let backend = pool(&bed, 2).await;
    let mut seen = Vec::new();
    for round in 0..6 {
        let (handle, _door) = make(&backend, bed.spec()).await;
        assert!(handle.evidence().warm, "round {round}");
        let marks = "cat /workspace/mark /tmp/mark /home/agent/mark /dev/shm/mark 2>/dev/null";
        assert_eq!(sh(&*handle, marks).await.out, "", "round {round}");
        sh(
            &*handle,
            "for d in /workspace /tmp /home/agent /dev/shm; do echo mine > $d/mark; done",
        )
        .await
        .ok();
        let identity = sh(&*handle, "readlink /proc/self/ns/*").await.ok();
        assert!(!seen.contains(&identity));
        seen.push(identity);
        handle.destroy().await.expect("destroys");
        filled(&backend, 2).await;
    }
}

async fn a_run_of_another_kind_gets_a_sandbox_of_its_own(bed: Bed) {
    let backend = pool(&bed, 1).await;
    let mut spec = bed.spec();
    // The kernel lets nobody change this later.
    spec.limits.pids = 123;
    let (first, _door) = make(&backend, spec.clone()).await;
    assert!(!first.evidence().warm);
    assert!(first.evidence().limits.contains(&"pids=123".to_owned()));
    filled(&backend, 1).await;
    let (second, _door) = make(&backend, spec.clone()).await;
    assert!(second.evidence().warm, "the pool has learned");
    assert!(second.evidence().limits.contains(&"pids=123".to_owned()));
    spec.limits.memory_bytes = 0;
    refused(backend.create(spec).await);
}

async fn a_dead_one_is_never_handed_out(bed: Bed) {
    let backend = pool(&bed, 2).await;
    let guests = || of_sandboxes().into_iter().filter(|p| p.name == "stockade-guest");
    assert_eq!(guests().count(), 2);
    for guest in guests() {
        kill(Pid::from_raw(guest.pid), Signal::SIGKILL).expect("kills");
    }
    // At once, before anybody has noticed.
    let (handle, _door) = make(&backend, bed.spec()).await;
    assert_eq!(run(&*handle, &["echo", "here"]).await.ok(), "here\n");
    filled(&backend, 2).await;
    let (handle, _door) = make(&backend, bed.spec()).await;
    assert!(handle.evidence().warm);
}

async fn a_cancelled_claim_leaves_nothing(bed: Bed) {
    let backend = pool(&bed, 1).await;
    for microseconds in [0, 50, 100, 200, 400, 800, 1600] {
        let patience = Duration::from_micros(microseconds);
        let _ = timeout(patience, backend.create(bed.spec())).await;
        filled(&backend, 1).await;
    }
    drop(backend);
    eventually("the pool is gone with its backend", || of_sandboxes().is_empty());
}

/// Not a case of its own: the process that the next one kills. Alone it does nothing.
async fn helper_with_a_pool(bed: Bed) {
    if std::env::var_os("STOCKADE_TEST_VICTIM").is_none() {
        return;
    }
    let backend = pool(&bed, 2).await;
    println!("{} are ready", backend.warm());
    std::future::pending::<()>().await;
}

async fn the_pool_dies_with_its_owner(bed: Bed) {
    let path = format!("pool::{}::helper_with_a_pool", bed.mode.name());
    let mut victim = test_command(&bed.dir, &path)
        .env("STOCKADE_TEST_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.ends_with("2 are ready"));
    let before = descendants(i32::try_from(victim.id()).expect("pid"));
    victim.kill().expect("kill -9");
    victim.wait().expect("ended");
    assert!(
        ready && before.iter().filter(|p| p.name == "stockade-guest").count() == 2,
        "{before:?}"
    );
    eventually("its processes are gone", || {
        let now = processes();
        before.iter().all(|p| now.iter().all(|n| n.pid != p.pid))
    });
    let left = || std::fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count);
    eventually("its files are gone", || left() == 0);
    // The rest (cgroups, processes of the user) is judged after every case.
}

async fn a_killed_zygote_is_replaced(bed: Bed) {
    let before = bed.create().await;
    let zygote = || {
        descendants(own_pid())
            .into_iter()
            .find(|p| p.name == ZYGOTE)
            .map(|p| p.pid)
    };
    let first = zygote().expect("a zygote");
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("kills");
    // What it made goes on, and its successor makes more.
    assert_eq!(run(&*before, &["echo", "here"]).await.ok(), "here\n");
    let after = bed.create().await;
    assert_eq!(run(&*after, &["echo", "here"]).await.ok(), "here\n");
    assert_ne!(zygote().expect("another zygote"), first);
    // The launcher of the first is nobody's child of ours any more and cleans up all the same.
    before.destroy().await.expect("destroys");
    let left = || std::fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count);
    assert_eq!(left(), 1);
    assert_eq!(run(&*after, &["echo", "untouched"]).await.ok(), "untouched\n");
    after.destroy().await.expect("destroys");
    assert_eq!((left(), of_sandboxes().len()), (0, 0));
}
