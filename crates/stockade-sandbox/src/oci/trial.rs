//! What programs inside miss where the kernel is the runtime's own, found out by trying.

use std::time::Duration;

use bytes::Bytes;
use stockade_ports::sandbox::{ExecRequest, Exit, Output, PtySize};

use crate::client::Client;

/// Longest a trial may take. None of them waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// What reads a typed line, and ends well if it gets one.
const READ_A_LINE: &str = "stty -echo; echo ready; read line && echo read";
/// Prints the parent of a process whose own parent has ended.
const ORPHAN: &str = "p=$(sh -c 'sleep 60 > /dev/null 2>&1 & echo $!'); cut -d' ' -f4 /proc/$p/stat; kill $p";

/// Tries what gVisor has learned only lately; one sentence for each thing that does not work.
pub(super) async fn missing(client: &Client) -> Vec<String> {
    let mut missing = Vec::new();
    let mut note = |lacks: bool, what: &str| {
        if lacks {
            missing.push(what.to_owned());
        }
    };
    let stat = run(client, &["stat", "/"], None).await;
    note(
        stat.0 != Some(Exit::Code(0)),
        "this runtime refuses a flag of statx(2), so ls and stat of coreutils 9 fail in it: use gVisor of 2023 or \
         later, or an image with other tools",
    );
    // An interrupt ends the reader. A terminal that knows none does not know the end of input either.
    let interrupt = run(client, &["sh", "-c", READ_A_LINE], Some(b"\x03\n")).await;
    note(
        interrupt.0 == Some(Exit::Code(0)),
        "a terminal of this runtime passes on what is typed and no more: an interrupt or the end of input that is \
         typed has no effect (end commands by signals), and /dev/tty does not open",
    );
    let orphan = run(client, &["sh", "-c", ORPHAN], None).await;
    note(
        orphan.1.trim() == "1",
        "this runtime has no subreaper (prctl(2)): a process that has left its command's session is ended when any \
         command is",
    );
    missing
}

/// Runs a command to its end, on a terminal if something is to be typed once it is ready.
async fn run(client: &Client, argv: &[&str], typed: Option<&'static [u8]>) -> (Option<Exit>, String) {
    let request = ExecRequest {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        timeout: Some(PATIENCE),
        pty: typed.map(|_| PtySize { rows: 24, cols: 80 }),
        ..ExecRequest::default()
    };
    let Ok(mut process) = client.exec(request).await else {
        return (None, String::new());
    };
    let (mut said, mut to_type) = (String::new(), typed);
    while let Some(output) = process.output.recv().await {
        match output {
            Output::Stdout(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
            Output::Stderr(_) => {}
            Output::Exited(exit) => return (Some(exit), said),
        }
        if said.contains("ready")
            && let Some(typed) = to_type.take()
        {
            // It is told by the exit if nobody takes it any more.
            let _ = process.stdin.send(Bytes::from_static(typed)).await;
        }
    }
    (None, said)
}
