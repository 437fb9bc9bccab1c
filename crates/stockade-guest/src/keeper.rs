//! The keeper: one small process per command, between pid 1 and the command.
//!
//! It is a subreaper, so whatever the command starts stays below it however often it
//! forks and changes session; that is what makes "kill the whole tree" possible without
//! cgroups. Where a kernel knows no subreapers it stays as long as the command's session does. It never executes a program, holds no descriptor of the Guest, and ends
//! when the last process below it has ended.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd},
    time::Duration,
};

use crate::{
    sweep,
    sys::{self, Forked, ProcessLimit},
    terminal,
};

/// A command ready to be started: nothing in here can fail to convert any more.
pub(crate) struct Program {
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: String,
    pub(crate) limit: ProcessLimit,
}

/// The command's ends of its streams; `stdin` is `/dev/null` when no input follows.
pub(crate) struct Stdio {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// All three are one terminal, which becomes the command's controlling one.
    pub(crate) terminal: bool,
}

/// What a keeper tells the Guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command runs; its process.
    Started(sys::Pid),
    /// Could not start: at which step (see [`Step`]), with which errno.
    Refused(Step, i32),
    /// Wait status of the command.
    Exited(i32),
}

/// Steps between fork and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Fork,
    Prepare,
    Chdir,
    Exec,
}

/// Pause between two looks at a session, which cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of one report on its line.
pub(crate) const REPORT_LEN: usize = 9;

impl Report {
    fn encode(self) -> [u8; REPORT_LEN] {
        let (tag, a, b) = match self {
            Self::Started(pid) => (1, pid, 0),
            Self::Refused(step, errno) => (2, step as i32, errno),
            Self::Exited(status) => (3, status, 0),
        };
        let mut out = [0; REPORT_LEN];
        out[0] = tag;
        out[1..5].copy_from_slice(&a.to_ne_bytes());
        out[5..].copy_from_slice(&b.to_ne_bytes());
        out
    }

    pub(crate) fn decode(bytes: [u8; REPORT_LEN]) -> Option<Self> {
        let a = i32::from_ne_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let b = i32::from_ne_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        Some(match bytes[0] {
            1 => Self::Started(a),
            2 => Self::Refused(
                match a {
                    0 => Step::Fork,
                    1 => Step::Prepare,
                    2 => Step::Chdir,
                    _ => Step::Exec,
                },
                b,
            ),
            3 => Self::Exited(a),
            _ => return None,
        })
    }
}

/// Forks the keeper. Returns its pid; its reports arrive on the other end of `report`.
pub(crate) fn spawn(program: &Program, stdio: Stdio, report: OwnedFd) -> io::Result<sys::Pid> {
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => sys::exit_now(keep(program, stdio, report)),
    }
}

fn keep(program: &Program, stdio: Stdio, report: OwnedFd) -> i32 {
    sys::close_others(&[
        stdio.stdin.as_raw_fd(),
        stdio.stdout.as_raw_fd(),
        stdio.stderr.as_raw_fd(),
        report.as_raw_fd(),
    ]);
    let mut report = File::from(report);
    let mut tell = |what: Report| report.write_all(&what.encode()).is_ok();
    let command = match start(program, stdio) {
        Ok(pid) => pid,
        Err((step, error)) => {
            tell(Report::Refused(step, error.raw_os_error().unwrap_or(0)));
            return 0;
        }
    };
    if !tell(Report::Started(command)) {
        return 1;
    }
    loop {
        match sys::reap(true) {
            Ok(Some(ended)) if ended.pid == command => {
                tell(Report::Exited(ended.status));
            }
            Ok(_) => {}
            // ECHILD: the last process of the tree is gone, or the last that is still ours.
            Err(_) => break,
        }
    }
    if !sys::has_subreapers() {
        while sweep::session_lives(command) {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    0
}

/// Starts the command and waits until it runs its own program or has failed to.
fn start(program: &Program, stdio: Stdio) -> Result<sys::Pid, (Step, io::Error)> {
    // The Guest's own two pipes must not live on in a keeper.
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| (Step::Prepare, e))?;
    for fd in 0..3 {
        sys::duplicate(null.as_raw_fd(), fd).map_err(|e| (Step::Prepare, e))?;
    }
    sys::set_name(c"stockade-keeper");
    match sys::become_subreaper() {
        // gVisor before 2023 has none. Orphans become pid 1's there and are known by their session:
        // one that has left it goes with the next sweep, sooner than it had to, but nothing that
        // should end stays.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
        other => other.map_err(|e| (Step::Prepare, e))?,
    }
    let (failure, failure_write) = sys::line().map_err(|e| (Step::Prepare, e))?;
    match sys::fork().map_err(|e| (Step::Fork, e))? {
        Forked::Child => {
            drop(failure);
            let (step, error) = become_command(program, stdio, &failure_write);
            let mut failure = File::from(failure_write);
            let what = Report::Refused(step, error.raw_os_error().unwrap_or(0));
            let _ = failure.write_all(&what.encode());
            sys::exit_now(127)
        }
        Forked::Parent(pid) => {
            drop((failure_write, stdio));
            let mut bytes = [0; REPORT_LEN];
            // The line closes on exec: end of file means the command runs.
            match File::from(failure).read_exact(&mut bytes) {
                Err(_) => Ok(pid),
                Ok(()) => {
                    let (step, errno) = match Report::decode(bytes) {
                        Some(Report::Refused(step, errno)) => (step, errno),
                        _ => (Step::Exec, 0),
                    };
                    Err((step, io::Error::from_raw_os_error(errno)))
                }
            }
        }
    }
}

/// Turns the calling process into the command; returns only on failure.
fn become_command(program: &Program, stdio: Stdio, failure: &OwnedFd) -> (Step, io::Error) {
    let prepare = || -> io::Result<()> {
        sys::new_session()?;
        if stdio.terminal {
            terminal::control(stdio.stdin.as_fd())?;
        }
        for (target, fd) in [stdio.stdin, stdio.stdout, stdio.stderr].into_iter().enumerate() {
            // Above 2 by construction: 0 to 2 are /dev/null by now.
            sys::duplicate(fd.into_raw_fd(), i32::try_from(target).unwrap_or(2))?;
        }
        sys::close_others(&[failure.as_raw_fd()]);
        sys::reset_signals();
        sys::apply_process_limit(program.limit)
    };
    if let Err(e) = prepare() {
        return (Step::Prepare, e);
    }
    if let Err(e) = std::env::set_current_dir(&program.cwd) {
        return (Step::Chdir, e);
    }
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in &program.candidates {
        let error = sys::exec(candidate, &program.argv, &program.env);
        // "Not here" keeps looking; anything else is worth more than a later "not here".
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) {
            last = error;
        }
    }
    (Step::Exec, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_round_trip_and_garbage_is_refused() {
        for report in [
            Report::Started(42),
            Report::Refused(Step::Chdir, libc::ENOENT),
            Report::Exited(9),
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([9; REPORT_LEN]), None);
    }
}
