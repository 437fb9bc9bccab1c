//! A paused sandbox stands still, goes on where it stood, and can be ended meanwhile.

use std::time::Duration;

use stockade_ports::sandbox::{Output, Process, SandboxError, SandboxHandle};
use tokio::time::{sleep, timeout};

use crate::bed::{Bed, cases, refused, request, run};

cases!(a_paused_sandbox_stands_still_and_goes_on, a_paused_sandbox_can_be_ended,);

/// Long enough for a process that runs to show it many times over.
const A_WHILE: Duration = Duration::from_millis(300);
/// Longest a process that runs may leave without a sign, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(10);

async fn ticking(handle: &dyn SandboxHandle) -> Process {
    let script = "while :; do echo tick; sleep 0.01; done";
    let process = handle.exec(request(&["sh", "-c", script])).await;
    process.unwrap_or_else(|e| panic!("{e}"))
}

/// Ticks until there is none for so long, or there were plenty.
async fn ticks(process: &mut Process, patience: Duration) -> usize {
    let mut seen = 0;
    while seen < 100 {
        match timeout(patience, process.output.recv()).await {
            Ok(Some(Output::Stdout(bytes))) => seen += bytes.iter().filter(|b| **b == b'\n').count(),
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    seen
}

/// Pauses, or says that this host cannot, with what to do about it.
async fn paused(bed: &Bed, handle: &dyn SandboxHandle) -> bool {
    assert!(bed.sandbox.capabilities().pause, "every backend here can");
    match handle.pause().await {
        Ok(()) => true,
        Err(error) => {
            assert!(!bed.mode.is_native() || bed.mode.rights() == "rootless", "{error}");
            assert!(matches!(error, SandboxError::Incapable { .. }), "{error}");
            assert!(error.to_string().contains("cgroup"), "{error}");
            // Nothing has changed.
            assert_eq!(run(handle, &["echo", "well"]).await.ok(), "well\n");
            false
        }
    }
}

async fn a_paused_sandbox_stands_still_and_goes_on(bed: Bed) {
    let handle = bed.create().await;
    let mut process = ticking(&*handle).await;
    assert_eq!(ticks(&mut process, PATIENCE).await, 100, "it runs");
    if !paused(&bed, &*handle).await {
        return;
    }
    handle.pause().await.expect("twice is once");
    // What was on its way arrives, and then nothing.
    assert!(ticks(&mut process, A_WHILE).await < 100);
    assert_eq!(ticks(&mut process, A_WHILE).await, 0, "it stands");
    handle.resume().await.expect("resumes");
    handle.resume().await.expect("twice is once");
    assert_eq!(ticks(&mut process, PATIENCE).await, 100, "it runs again");
    assert_eq!(run(&*handle, &["echo", "well"]).await.ok(), "well\n");
}

async fn a_paused_sandbox_can_be_ended(bed: Bed) {
    let handle = bed.create().await;
    let process = ticking(&*handle).await;
    if !paused(&bed, &*handle).await {
        return;
    }
    let ended = timeout(Duration::from_secs(10), handle.destroy()).await;
    ended.expect("in time").expect("destroys");
    drop(process);
    sleep(Duration::from_millis(1)).await;
    refused(handle.exec(request(&["true"])).await);
}
