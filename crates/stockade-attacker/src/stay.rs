//! Processes that do not want to end.

use std::{fs, thread, time::Duration};

use crate::{
    args::Args,
    sys::{alarm, exit, fork, ignore, try_call, wait},
    tell::ready,
};

/// Longest any of them lives, wherever it is: the red team is not to litter.
const LIFE: u32 = 60;

fn deaf() {
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGPIPE,
    ] {
        ignore(signal);
    }
}

/// Forks twice, leaves its session, ignores every signal that can be ignored, and waits. With
/// `parent=stays` the first process waits as well. `token=` stands in the command line, by which
/// the red team finds them. `beat=` is a file that grows as long as it lives.
pub(crate) fn stay(args: &Args) {
    deaf();
    let stays = args.get("parent") == "stays";
    let first = fork();
    if first == Ok(None) {
        let _ = try_call(libc::SYS_setsid, &[]);
        if fork() != Ok(None) {
            exit(0);
        }
        deaf();
        alarm(LIFE);
        if !stays {
            // Whoever waits for the output to end waits for the descriptors.
            for fd in 0..3 {
                let _ = try_call(libc::SYS_close, &[fd]);
            }
        }
        beat(args.get("beat"));
    }
    // When the one between has ended, the one that stays is there.
    if let Ok(Some(between)) = first {
        wait(between);
    }
    ready();
    if stays {
        alarm(LIFE);
        beat("");
    }
}

fn beat(path: &str) -> ! {
    let mut number = 0_u64;
    loop {
        if !path.is_empty() {
            number += 1;
            let _ = fs::write(path, number.to_string());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits to be found, read, stopped or killed: the red team's own process on the host.
pub(crate) fn victim(_: &Args) {
    alarm(LIFE * 5);
    ready();
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Sends `number=` to every `pid=`.
pub(crate) fn signal(args: &Args) {
    for pid in args.all("pid").filter_map(|pid| pid.parse().ok()) {
        let _ = crate::sys::kill(pid, i32::try_from(args.number("number")).unwrap_or(0));
    }
}
