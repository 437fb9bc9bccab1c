//! Commands that are limited, signalled, stopped and paused, and many of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stockade_ports::sandbox::{Exit, Kernel, Output, SandboxError};
use tokio::time::timeout;

use crate::bed::{Bed, Mode, bytes, cases, collect, count, refused, request, sh};

cases!(
    an_output_limit_ends_the_tree,
    there_is_one_user,
    signals_reach_the_command_alone,
    many_commands_run_at_once,
    a_stop_asks_before_it_ends,
    a_paused_sandbox_answers_when_it_goes_on;
    oci: too_much_at_once_is_done_or_named,
);

async fn an_output_limit_ends_the_tree(bed: Bed) {
    let handle = bed.create().await;
    let limited = |script: &str, limit| {
        let mut request = request(&["sh", "-c", script]);
        request.max_output = Some(limit);
        request
    };
    // Exactly as much as is allowed is no offence; both streams count together.
    let exact = handle.exec(limited("printf 12345; printf 67890 >&2", 10)).await;
    let ran = collect(exact.expect("starts")).await;
    assert_eq!((ran.exit, ran.out.len(), ran.err.len()), (Exit::Code(0), 5, 5));
    let over = handle
        .exec(limited("printf 12345; printf 678901 >&2; sleep 20", 10))
        .await;
    let ran = collect(over.expect("starts")).await;
    assert_eq!((ran.exit, ran.out.len() + ran.err.len()), (Exit::OutputLimit, 10));
    let script = "setsid sh -c 'sleep 6541; # in a session of its own' & yes";
    let flood = handle.exec(limited(script, 5_000_000)).await;
    let ran = collect(flood.expect("starts")).await;
    assert_eq!((ran.exit, ran.out.len()), (Exit::OutputLimit, 5_000_000));
    assert_eq!(count(&*handle, "6541").await, 0, "its tree is gone");
    let error = refused(handle.exec(limited("true", 0)).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
}

async fn there_is_one_user(bed: Bed) {
    let handle = bed.create().await;
    let mut whoami = request(&["id", "-un"]);
    whoami.user = Some("agent".to_owned());
    let ran = collect(handle.exec(whoami.clone()).await.expect("starts")).await;
    assert_eq!(ran.ok(), "agent\n");
    for name in ["root", "0", "1000", ""] {
        whoami.user = Some(name.to_owned());
        let error = refused(handle.exec(whoami.clone()).await);
        assert!(error.to_string().contains("one user"), "{error}");
        assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    }
}

async fn signals_reach_the_command_alone(bed: Bed) {
    let handle = bed.create().await;
    let script = "trap 'echo caught; exit 5' TERM; sh -c 'sleep 6542; # goes on' & echo ready; \
        while :; do sleep 0.02; done";
    let mut process = handle.exec(request(&["sh", "-c", script])).await.expect("starts");
    assert_eq!(
        process.output.recv().await,
        Some(Output::Stdout(Bytes::from_static(b"ready\n")))
    );
    let control = process.control.clone();
    for nonsense in [0, -1, 4711, i32::MIN] {
        control.signal(nonsense).await;
    }
    control.signal(libc::SIGTERM).await;
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Code(5), "caught\n"));
    assert!(count(&*handle, "6542").await >= 1, "what it started was not signalled");
    // Who has ended hears nothing, and nobody else hears it instead.
    for _ in 0..10 {
        control.signal(libc::SIGKILL).await;
    }
    let process = handle.exec(request(&["sleep", "20"])).await.expect("starts");
    control.signal(libc::SIGKILL).await;
    process.control.signal(libc::SIGUSR1).await;
    assert_eq!(collect(process).await.exit, Exit::Signal(libc::SIGUSR1));
}

async fn many_commands_run_at_once(bed: Bed) {
    let handle = bed.create().await;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let script = format!("sleep 0.5; seq 1 20000 | tail -n 1; echo {n}; exit {n}");
                let ran = sh(&*handle, &script).await;
                let gone = if ran.exit == Exit::SandboxGone {
                    handle.ended().await
                } else {
                    String::new()
                };
                assert_eq!((ran.out, ran.exit), (format!("20000\n{n}\n"), Exit::Code(n)), "{gone}");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("fine");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "not one after the other");
}

async fn a_stop_asks_before_it_ends(bed: Bed) {
    // Everybody does as asked: it takes as long as they take.
    let handle = bed.create().await;
    let polite = "trap 'sleep 0.2; exit 6' TERM; echo ready; while :; do sleep 0.02; done";
    let mut process = handle.exec(request(&["sh", "-c", polite])).await.expect("starts");
    assert!(matches!(process.output.recv().await, Some(Output::Stdout(_))));
    // A stopped one is asked as well.
    sh(&*handle, "setsid sh -c 'kill -STOP $$; # stopped' > /dev/null 2>&1 &")
        .await
        .ok();
    let begun = Instant::now();
    handle.stop(Duration::from_secs(20)).await.expect("stops");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(collect(process).await.exit, Exit::Code(6));
    // Who does not is ended when the time is over.
    let handle = bed.create().await;
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
    let mut process = handle.exec(request(&["sh", "-c", stubborn])).await.expect("starts");
    assert!(matches!(process.output.recv().await, Some(Output::Stdout(_))));
    let begun = Instant::now();
    handle.stop(Duration::from_millis(400)).await.expect("stops");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(collect(process).await.exit, Exit::SandboxGone);
}

async fn a_paused_sandbox_answers_when_it_goes_on(bed: Bed) {
    let handle = bed.create().await;
    if let Err(error) = handle.pause().await {
        // What a backend cannot it says; an ordinary user's sandbox may have no cgroup to freeze.
        assert!(
            bed.mode == Mode::Rootless || !bed.sandbox.capabilities().pause,
            "{error}"
        );
        assert!(matches!(error, SandboxError::Incapable { .. }), "{error}");
        return;
    }
    let asked = {
        let handle = handle.clone();
        tokio::spawn(async move {
            handle
                .write_file("/tmp/f", bytes(3_000_000), 0o600)
                .await
                .expect("writes");
            let back = handle.read_file("/tmp/f", 1 << 30).await.expect("reads");
            assert_eq!(back.len(), 3_000_000);
            sh(&*handle, "echo awake").await.ok()
        })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!asked.is_finished(), "nothing answers meanwhile");
    handle.resume().await.expect("resumes");
    let answer = timeout(Duration::from_secs(20), asked).await.expect("answers");
    assert_eq!(answer.expect("fine"), "awake\n");
}

/// 180 busy processes and what they start are within this limit, and cost gVisor 18,000 threads on
/// the host.
async fn too_much_at_once_is_done_or_named(bed: Bed) {
    let mut spec = bed.spec();
    spec.limits.pids = 400;
    let handle = bed.create_from(spec).await;
    let spin = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done";
    let script = format!("for i in $(seq 1 180); do ({spin}; sleep 0.2; {spin}) & done; wait; echo done");
    let ran = sh(&*handle, &script).await;
    if bed.sandbox.capabilities().kernel == Kernel::Shared || ran.exit == Exit::Code(0) {
        assert_eq!(ran.ok(), "done\n");
        return;
    }
    assert_eq!(ran.exit, Exit::SandboxGone, "{ran:?}");
    let reason = handle.ended().await;
    assert!(reason.contains("more threads on the host than the limit"), "{reason}");
    let neighbour = bed.create().await;
    assert_eq!(sh(&*neighbour, "echo well").await.ok(), "well\n");
}
