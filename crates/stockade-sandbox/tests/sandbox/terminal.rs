//! Commands on a terminal.

use std::time::Duration;

use bytes::Bytes;
use stockade_ports::sandbox::{ExecRequest, Exit, Output, Process, PtySize, SandboxError, SandboxHandle};
use tokio::time::timeout;

use crate::bed::{Bed, Ran, cases, collect, count, refused, request};

cases!(
    a_command_on_a_terminal_has_one,
    a_terminal_has_a_size_and_takes_another,
    all_output_comes_before_the_end,
    a_terminal_takes_part_in_limits_and_kills,
    input_ends_by_the_terminals_character,
    interrupts_are_typed,
);

const SIZE: PtySize = PtySize { rows: 24, cols: 80 };

fn on_terminal(script: &str) -> ExecRequest {
    let mut request = request(&["sh", "-c", script]);
    request.pty = Some(SIZE);
    request
}

async fn start(handle: &dyn SandboxHandle, script: &str) -> Process {
    let process = handle.exec(on_terminal(script)).await;
    process.unwrap_or_else(|e| panic!("{script}: {e}"))
}

async fn run(handle: &dyn SandboxHandle, script: &str) -> Ran {
    let ran = timeout(Duration::from_secs(20), collect(start(handle, script).await)).await;
    ran.unwrap_or_else(|_| panic!("{script}: no end"))
}

/// Reads until a text has come; returns everything up to there.
async fn read_until(process: &mut Process, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match timeout(Duration::from_secs(20), process.output.recv()).await {
            Ok(Some(Output::Stdout(bytes))) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("waiting for {text:?}: {other:?} after {seen:?}"),
        }
    }
    seen
}

async fn type_in(process: &Process, text: &'static str) {
    let bytes = Bytes::from_static(text.as_bytes());
    process.stdin.send(bytes).await.expect("takes input");
}

/// What a backend notes whose terminals pass on what is typed and no more.
const TYPED: &str = "an interrupt or the end of input that is typed has no effect";

/// What was typed has not ended a command; a signal does.
async fn goes_on_until(process: Process, signal: i32, exit: Exit) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.control.signal(signal).await;
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert_eq!(ran.exit, exit, "{ran:?}");
}

async fn a_command_on_a_terminal_has_one(bed: Bed) {
    let handle = bed.create().await;
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && echo \"$TERM\" && echo err >&2";
    let ran = run(&*handle, script).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Code(0), ""), "{ran:?}");
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{ran:?}");
    assert_eq!(lines[1..], ["xterm-256color", "err"]);
    let by_name = run(&*handle, "echo x > /dev/tty").await;
    if bed.misses(TYPED).await {
        assert!(by_name.out.contains("Input/output error"), "{by_name:?}");
    } else {
        assert_eq!(by_name.ok(), "x\r\n");
    }
    // It leads the session and is in the foreground, which gVisor knows of but does not show.
    let script = "set -- $(cut -d' ' -f1,5,6,8 /proc/$$/stat); echo $1 $2 $3 $4";
    let out = run(&*handle, script).await.ok();
    let ids: Vec<_> = out.split_whitespace().collect();
    let shown = if bed.mode.shares_the_kernel() { 4 } else { 3 };
    assert!(ids.len() == 4 && ids[..shown].iter().all(|id| *id == ids[0]), "{out}");
    let mut own = on_terminal("echo $TERM");
    own.env.insert("TERM".to_owned(), "vt100".to_owned());
    let own = collect(handle.exec(own).await.expect("starts")).await;
    assert_eq!(own.ok(), "vt100\r\n");
    for size in [PtySize { rows: 0, ..SIZE }, PtySize { cols: 0, ..SIZE }] {
        let mut nothing = on_terminal("true");
        nothing.pty = Some(size);
        let error = refused(handle.exec(nothing).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
    }
    // Without asking there is none.
    let ran = collect(handle.exec(request(&["tty"])).await.expect("starts")).await;
    assert_eq!(ran.exit, Exit::Code(1), "{ran:?}");
}

async fn a_terminal_has_a_size_and_takes_another(bed: Bed) {
    let handle = bed.create().await;
    let script = "trap 'stty size; exit 7' WINCH; stty size; while :; do sleep 0.02; done";
    let mut process = start(&*handle, script).await;
    assert!(read_until(&mut process, "\n").await.starts_with("24 80"));
    process.control.resize(PtySize { rows: 0, cols: 9 }).await;
    process.control.resize(PtySize { rows: 50, cols: 132 }).await;
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert_eq!((ran.out.as_str(), ran.exit), ("50 132\r\n", Exit::Code(7)));
}

async fn input_ends_by_the_terminals_character(bed: Bed) {
    let handle = bed.create().await;
    let mut process = start(&*handle, "stty -echo; echo ready; cat; echo over").await;
    read_until(&mut process, "ready").await;
    type_in(&process, "one\ntwo\n").await;
    process.stdin = tokio::sync::mpsc::channel(1).0;
    if bed.misses(TYPED).await {
        let seen = read_until(&mut process, "two\r\n").await;
        assert!(seen.ends_with("one\r\ntwo\r\n"), "{seen:?}");
        return goes_on_until(process, libc::SIGTERM, Exit::Signal(libc::SIGTERM)).await;
    }
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert_eq!(ran.exit, Exit::Code(0));
    assert!(ran.out.ends_with("one\r\ntwo\r\nover\r\n"), "{ran:?}");
    // Once only, and the one that is set: the second reader is not ended.
    let script = "stty -echo eof '#'; echo ready; cat; timeout 0.3 cat; echo second=$?";
    let mut process = start(&*handle, script).await;
    read_until(&mut process, "ready").await;
    type_in(&process, "x\n").await;
    process.stdin = tokio::sync::mpsc::channel(1).0;
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert!(ran.out.ends_with("x\r\nsecond=124\r\n"), "{ran:?}");
}

async fn all_output_comes_before_the_end(bed: Bed) {
    let handle = bed.create().await;
    for _ in 0..10 {
        let ran = run(&*handle, "stty -onlcr; seq 1 20000; exit 3").await;
        assert_eq!(ran.exit, Exit::Code(3));
        assert_eq!(ran.out.lines().count(), 20_000);
        assert!(ran.out.ends_with("19999\n20000\n"));
    }
    // A process that stays behind in another session holds up nothing.
    let begun = std::time::Instant::now();
    let ran = run(&*handle, "setsid sleep 6543 & echo started").await;
    assert_eq!(ran.exit, Exit::Code(0));
    assert!(ran.out.contains("started"), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

async fn a_terminal_takes_part_in_limits_and_kills(bed: Bed) {
    let handle = bed.create().await;
    let mut flood = on_terminal("stty -onlcr; yes 123456789");
    flood.max_output = Some(100_000);
    let ran = collect(handle.exec(flood).await.expect("starts")).await;
    assert_eq!((ran.exit, ran.out.len()), (Exit::OutputLimit, 100_000));
    let mut slow = on_terminal("echo before; (setsid sleep 6544 &); sleep 6544");
    slow.timeout = Some(Duration::from_millis(700));
    let ran = collect(handle.exec(slow).await.expect("starts")).await;
    // The shell may have had a moment to say what became of its child.
    let said = ran.out.strip_suffix("Killed\r\n").unwrap_or(&ran.out);
    assert_eq!((ran.exit, said), (Exit::TimedOut, "before\r\n"));
    assert_eq!(count(&*handle, "6544").await, 0);
    // Nobody reads for a while: it waits, and loses nothing.
    let mut waiting = start(&*handle, "stty -onlcr; seq 1 200000; exit 4").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut bytes = 0;
    let exit = loop {
        match timeout(Duration::from_secs(20), waiting.output.recv()).await {
            Ok(Some(Output::Stdout(more))) => bytes += more.len(),
            Ok(Some(Output::Exited(exit))) => break exit,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((exit, bytes), (Exit::Code(4), 1_288_895));
}

async fn interrupts_are_typed(bed: Bed) {
    let handle = bed.create().await;
    let mut process = start(
        &*handle,
        "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.02; done",
    )
    .await;
    read_until(&mut process, "ready").await;
    type_in(&process, "\x03").await;
    if bed.misses(TYPED).await {
        return goes_on_until(process, libc::SIGINT, Exit::Code(9)).await;
    }
    let ran = timeout(Duration::from_secs(20), collect(process)).await.expect("ends");
    assert_eq!(ran.exit, Exit::Code(9));
    assert!(ran.out.contains("caught"), "{ran:?}");
}
