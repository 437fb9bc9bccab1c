//! Commands: streams, ends, signals, time, trees.

use std::time::{Duration, Instant};

use stockade_ports::sandbox::{Exit, Output, SandboxError};
use tokio::time::timeout;

use crate::bed::{Bed, bytes, cases, collect, count, probe, refused, request, run, sh};

cases!(
    streams_are_apart_and_whole,
    ends_are_told_apart,
    what_cannot_start_says_why,
    a_timeout_kills_daemons_too,
    a_background_process_outlives_its_command,
    dropping_a_command_kills_its_tree,
    input_reaches_the_command_whole,
    input_nobody_reads_does_not_hang,
    a_chatty_command_holds_up_nobody,
    killing_the_keeper_frees_nobody,
    the_guest_cannot_be_killed_from_inside,
    environment_and_directory_are_as_asked,
);

async fn streams_are_apart_and_whole(bed: Bed) {
    let handle = bed.create().await;
    let ran = sh(&*handle, "echo out; echo err >&2; exit 3").await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    assert_eq!(ran.exit, Exit::Code(3));
    let ran = sh(&*handle, "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2").await;
    assert_eq!((ran.out.len(), ran.err.len()), (3_000_000, 1_000_000));
}

async fn ends_are_told_apart(bed: Bed) {
    let handle = bed.create().await;
    assert_eq!(run(&*handle, &["true"]).await.exit, Exit::Code(0));
    assert_eq!(run(&*handle, &["false"]).await.exit, Exit::Code(1));
    assert_eq!(sh(&*handle, "kill -TERM $$").await.exit, Exit::Signal(15));
    let mut slow = request(&["sleep", "100"]);
    slow.timeout = Some(Duration::from_millis(50));
    let process = handle.exec(slow).await.expect("starts");
    assert_eq!(collect(process).await.exit, Exit::TimedOut);
    let process = handle.exec(request(&["sleep", "100"])).await.expect("starts");
    handle.destroy().await.expect("destroys");
    assert_eq!(collect(process).await.exit, Exit::SandboxGone);
    let gone = refused(handle.exec(request(&["true"])).await);
    assert!(matches!(gone, SandboxError::Gone(_)), "{gone}");
}

async fn what_cannot_start_says_why(bed: Bed) {
    let handle = bed.create().await;
    let error = refused(handle.exec(request(&["no-such-program"])).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    let error = refused(handle.exec(request(&["/etc/passwd"])).await);
    assert!(matches!(error, SandboxError::Inside { .. }), "{error}");
    let mut elsewhere = request(&["true"]);
    elsewhere.cwd = Some("/no/such/directory".to_owned());
    let error = refused(handle.exec(elsewhere).await);
    assert!(matches!(error, SandboxError::NotFound(_)), "{error}");
    for (argv, zero) in [(&[][..], false), (&[""], false), (&["true"], true), (&["a\0b"], false)] {
        let mut wrong = request(argv);
        if zero {
            wrong.timeout = Some(Duration::ZERO);
        }
        let error = refused(handle.exec(wrong).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{argv:?}: {error}");
    }
    let mut huge = request(&["true"]);
    huge.env.insert("X".to_owned(), "x".repeat(2 << 20));
    let error = refused(handle.exec(huge).await);
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    assert_eq!(run(&*handle, &["true"]).await.exit, Exit::Code(0), "still well");
}

async fn a_timeout_kills_daemons_too(bed: Bed) {
    let handle = bed.create().await;
    let mut forest = request(&[
        "sh",
        "-c",
        "/opt/agents/probe daemon 4321; (setsid sleep 4321 &); echo up; sleep 4321",
    ]);
    forest.timeout = Some(Duration::from_secs(2));
    let mut process = handle.exec(forest).await.expect("starts");
    assert!(matches!(process.output.recv().await, Some(Output::Stdout(_))));
    while count(&*handle, "4321").await < 3 {
        let ended = timeout(Duration::from_millis(10), process.output.recv()).await;
        assert!(ended.is_err(), "the tree is there before: {ended:?}");
    }
    assert_eq!(collect(process).await.exit, Exit::TimedOut);
    assert_eq!(count(&*handle, "4321").await, 0, "and gone after");
}

async fn a_background_process_outlives_its_command(bed: Bed) {
    let handle = bed.create().await;
    let begun = Instant::now();
    let ran = sh(
        &*handle,
        "sh -c 'while sleep 0.01; do echo noise; done; # keeps-going' & echo started",
    )
    .await;
    assert!(ran.ok().starts_with("started"));
    // One of another process group, as an interactive shell starts them.
    let job = "bash -c 'set -m; sleep 5432 > /dev/null 2>&1 &'";
    sh(&*handle, job).await.ok();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "its open output holds up nothing"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(count(&*handle, "keeps-going").await >= 1);
    // Another command's end, however hard, is not its own.
    let mut slow = request(&["sleep", "100"]);
    slow.timeout = Some(Duration::from_millis(50));
    assert_eq!(
        collect(handle.exec(slow).await.expect("starts")).await.exit,
        Exit::TimedOut
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    for still in ["keeps-going", "sleep 5432"] {
        assert!(count(&*handle, still).await >= 1, "{still}");
    }
}

async fn dropping_a_command_kills_its_tree(bed: Bed) {
    let handle = bed.create().await;
    let process = handle
        .exec(request(&["sh", "-c", "setsid sleep 7654 & sleep 7654"]))
        .await
        .expect("starts");
    gone_or_there(&*handle, "7654", true).await;
    drop(process);
    gone_or_there(&*handle, "7654", false).await;
}

async fn gone_or_there(handle: &dyn stockade_ports::sandbox::SandboxHandle, what: &str, there: bool) {
    for _ in 0..200 {
        if (count(handle, what).await > 0) == there {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} there: expected {there}");
}

async fn input_reaches_the_command_whole(bed: Bed) {
    let handle = bed.create().await;
    let mut cat = request(&["cat"]);
    cat.stdin = true;
    let mut process = handle.exec(cat).await.expect("starts");
    let sent = bytes(3_000_000);
    let stdin = std::mem::replace(&mut process.stdin, tokio::sync::mpsc::channel(1).0);
    let feeding = sent.clone();
    tokio::spawn(async move {
        for chunk in feeding.chunks(100_000) {
            stdin.send(feeding.slice_ref(chunk)).await.expect("takes input");
        }
    });
    let mut got = Vec::new();
    while let Some(output) = process.output.recv().await {
        match output {
            Output::Stdout(bytes) => got.extend_from_slice(&bytes),
            Output::Stderr(bytes) => panic!("{bytes:?}"),
            Output::Exited(exit) => assert_eq!(exit, Exit::Code(0)),
        }
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    // Without input a command reads the end at once.
    assert_eq!(run(&*handle, &["cat"]).await.ok(), "");
}

async fn input_nobody_reads_does_not_hang(bed: Bed) {
    let handle = bed.create().await;
    let mut head = request(&["sh", "-c", "head -c 3; exec 0<&-; sleep 0.3"]);
    head.stdin = true;
    let mut process = handle.exec(head).await.expect("starts");
    let stdin = std::mem::replace(&mut process.stdin, tokio::sync::mpsc::channel(1).0);
    let feeding = tokio::spawn(async move {
        // Ends when the command has: the queue then refuses.
        while stdin.send(bytes(100_000)).await.is_ok() {}
    });
    let ran = timeout(Duration::from_secs(10), collect(process)).await.expect("ends");
    assert_eq!(ran.out.len(), 3);
    timeout(Duration::from_secs(10), feeding)
        .await
        .expect("feeding ends")
        .expect("no panic");
}

async fn a_chatty_command_holds_up_nobody(bed: Bed) {
    let handle = bed.create().await;
    let mut chatty = handle.exec(request(&["yes"])).await.expect("starts");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    assert_eq!(run(&*handle, &["echo", "hi"]).await.ok(), "hi\n");
    assert!(begun.elapsed() < Duration::from_secs(3));
    // It was stopped by its credit, not lost: it goes on when somebody reads.
    let mut read = 0;
    while read < 2_000_000 {
        match timeout(Duration::from_secs(5), chatty.output.recv()).await {
            Ok(Some(Output::Stdout(bytes))) => read += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    drop(chatty);
    gone_or_there(&*handle, "yes", false).await;
}

async fn killing_the_keeper_frees_nobody(bed: Bed) {
    let handle = bed.create().await;
    // The parent of a command is its keeper, which has the agent's uid.
    let ran = sh(&*handle, "setsid sleep 5678 & kill -9 $PPID; sleep 5678").await;
    assert_eq!(ran.exit, Exit::Signal(9));
    gone_or_there(&*handle, "5678", false).await;
    assert_eq!(run(&*handle, &["echo", "well"]).await.ok(), "well\n");
}

async fn the_guest_cannot_be_killed_from_inside(bed: Bed) {
    let handle = bed.create().await;
    let script = "for s in KILL STOP TERM INT HUP SEGV QUIT; do kill -$s 1; done; sleep 0.1; echo tried";
    assert_eq!(sh(&*handle, script).await.ok(), "tried\n");
    assert_eq!(run(&*handle, &["echo", "well"]).await.ok(), "well\n");
    assert_eq!(
        probe(&*handle, &["own-server", "127.0.0.1:0"]).await.ok(),
        "own server\n"
    );
}

async fn environment_and_directory_are_as_asked(bed: Bed) {
    let handle = bed.create().await;
    let mut env = request(&["env"]);
    env.env.insert("A".to_owned(), "b c".to_owned());
    env.env.insert("LANG".to_owned(), "x".to_owned());
    let process = handle.exec(env).await.expect("starts");
    let out = collect(process).await.ok();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let names: Vec<_> = lines.iter().filter_map(|l| l.split('=').next()).collect();
    assert_eq!(names, ["A", "HOME", "LANG", "PATH", "TERM", "USER"]);
    assert!(lines.contains(&"A=b c") && lines.contains(&"LANG=x"));
    assert_eq!(run(&*handle, &["pwd"]).await.ok(), "/workspace\n");
}
