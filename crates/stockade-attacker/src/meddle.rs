//! Other processes' memory, descriptors and lives. `pid=` is the victim; `pid=child` is a child
//! of the attacker's own, for the control.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _},
    thread,
    time::Duration,
};

use crate::{
    args::Args,
    sys::{alarm, attempt_or, exit, fork, kill as signal, try_call, wait},
    tell::{Outcome, Refusal, any, attempt, refused},
};

static TARGET: [u8; 16] = *b"stockade-meddled";

/// A child that waits to be meddled with.
struct Child(i32);

impl Child {
    fn start() -> Result<Self, i32> {
        match fork()? {
            Some(pid) => Ok(Self(pid)),
            None => {
                alarm(30);
                loop {
                    let _ = try_call(libc::SYS_pause, &[]);
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if signal(self.0, libc::SIGKILL).is_ok() {
            wait(self.0);
        } else {
            exit(70);
        }
    }
}

/// Victims, and the child among them, if one was asked for.
fn victims(args: &Args) -> (Vec<i32>, Option<Child>) {
    let mut child = None;
    let mut pids = Vec::new();
    for word in args.all("pid") {
        if word == "child" {
            child = Child::start().ok();
            pids.extend(child.as_ref().map(|child| child.0));
        } else {
            pids.extend(word.parse::<i32>().ok());
        }
    }
    (pids, child)
}

/// Reads and steers other processes. Seized processes are let go of at once.
pub(crate) fn meddle(args: &Args) {
    let (pids, _child) = victims(args);
    let each = |name: &str, one: &dyn Fn(usize) -> Outcome| {
        any(name, pids.iter().map(|pid| one(usize::try_from(*pid).unwrap_or(0))));
    };
    const PTRACE_SEIZE: usize = 0x4206;
    each("ptrace", &|pid| {
        try_call(libc::SYS_ptrace, &[PTRACE_SEIZE, pid, 0, 0])?;
        let _ = try_call(libc::SYS_ptrace, &[libc::PTRACE_DETACH as usize, pid, 0, 0]);
        Ok(format!("seized process {pid}"))
    });
    // Bad addresses come after the question whether one may: "no such address" is a yes.
    let through = [libc::EFAULT];
    let mut buffer = [0_u8; 16];
    let address = TARGET.as_ptr() as usize;
    let local = [buffer.as_mut_ptr() as usize, buffer.len()];
    let remote = [address, TARGET.len()];
    let vectors = [local.as_ptr() as usize, 1, remote.as_ptr() as usize, 1, 0];
    for (name, number) in [
        ("process_vm_readv", libc::SYS_process_vm_readv),
        // What is written is what was read there, or zeros to a page that cannot be written.
        ("process_vm_writev", libc::SYS_process_vm_writev),
    ] {
        each(name, &|pid| {
            let [a, b, c, d, e] = vectors;
            attempt_or(number, &[pid, a, b, c, d, e], &through)
        });
    }
    each("mem", &|pid| {
        let mut file = OpenOptions::new().read(true).open(format!("/proc/{pid}/mem"))?;
        file.seek(std::io::SeekFrom::Start(address as u64))?;
        let mut bytes = [0; 16];
        match file.read(&mut bytes) {
            Ok(length) if length > 0 => Ok(format!("read the memory of process {pid}")),
            // The file was opened, and opening is where rights are checked.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(format!("opened the memory of {pid}")),
            Ok(_) => refused("its memory is gone"),
            Err(error) => Err(error.into()),
        }
    });
    each("pidfd_getfd", &|pid| {
        let pidfd = try_call(libc::SYS_pidfd_open, &[pid, 0])?;
        let result = try_call(libc::SYS_pidfd_getfd, &[pidfd, 0, 0]);
        drop(crate::sys::owned(pidfd));
        drop(crate::sys::owned(result?));
        Ok(format!("took descriptor 0 of process {pid}"))
    });
    each("kcmp", &|pid| {
        let own = std::process::id() as usize;
        attempt_or(libc::SYS_kcmp, &[own, pid, 0, 0, 0], &[])
    });
    each("prlimit", &|pid| {
        // Reads the limits and sets them to what they are.
        let mut limits = [0_u64; 2];
        let place = limits.as_mut_ptr() as usize;
        let files = libc::RLIMIT_NOFILE as usize;
        try_call(libc::SYS_prlimit64, &[pid, files, 0, place])?;
        attempt_or(libc::SYS_prlimit64, &[pid, files, place, 0], &[])
    });
}

/// Stops and kills `pid=`. What counts is whether the red team finds it so. (Only signals that a
/// first process of a machine is never sent: whatever it handles might end it.)
pub(crate) fn kill(args: &Args) {
    let (pids, child) = victims(args);
    let Some(child) = child else {
        for pid in pids {
            for (name, number) in [("stop", libc::SIGSTOP), ("kill", libc::SIGKILL)] {
                let told = signal(pid, number).map_err(Refusal::from);
                let told = told.map_or_else(|error| error.why, |()| "the kernel took the signal".to_owned());
                attempt(name, refused(format!("process {pid}: {told}")));
            }
        }
        return;
    };
    let _ = signal(child.0, libc::SIGSTOP);
    // Stopping takes a moment.
    thread::sleep(Duration::from_millis(20));
    let state = fs::read_to_string(format!("/proc/{}/stat", child.0)).unwrap_or_default();
    let stopped = state
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'));
    attempt(
        "stop",
        if stopped {
            Ok("it is stopped".to_owned())
        } else {
            refused("it runs")
        },
    );
    let _ = signal(child.0, libc::SIGKILL);
    let status = wait(child.0);
    std::mem::forget(child);
    let dead = libc::WIFSIGNALED(status);
    attempt(
        "kill",
        if dead {
            Ok("it is dead".to_owned())
        } else {
            refused("it lives")
        },
    );
}
