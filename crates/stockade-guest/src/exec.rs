//! One running command as the Guest sees it: its pipes, its credit and its end.

use std::{
    collections::VecDeque,
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use stockade_guest_proto::{ExecStart, ExitStatus, FailureKind, FrameKind, FromGuest, INITIAL_CREDIT, data_cost};

use crate::{
    conn::Conn,
    keeper::{self, Program, REPORT_LEN, Report, Stdio, Step},
    sys::{self, Pid, ProcessLimit},
};

/// Bytes of output moved at once.
const CHUNK: usize = 32 * 1024;
/// How long a keeper may take to report the end of a killed tree before it is killed itself.
const KEEPER_GRACE: Duration = Duration::from_millis(300);

/// One command.
pub(crate) struct Exec {
    id: u32,
    keeper: Pid,
    report: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    pending: VecDeque<u8>,
    owed: u64,
    eof: bool,
    stdout: Stream,
    stderr: Stream,
    credit: u64,
    deadline: Option<Instant>,
    killed: Option<Killed>,
    status: Option<ExitStatus>,
    told: bool,
    unheard: bool,
    keeper_gone: bool,
}

#[derive(Clone, Copy)]
struct Killed {
    timed_out: bool,
    at: Instant,
}

/// One output pipe. `left` is set at the command's end: what it had written by then.
struct Stream {
    kind: FrameKind,
    fd: Option<OwnedFd>,
    left: Option<usize>,
}

/// Which descriptors of a command the loop waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Report,
    Stdin,
    Stdout,
    Stderr,
}

impl Exec {
    /// Starts a command. The host hears of the outcome by `Started` or `Failed`.
    pub(crate) fn start(request: ExecStart, limit: ProcessLimit) -> Result<Self, (FailureKind, String)> {
        if request.timeout_ms == Some(0) {
            return Err((FailureKind::Invalid, "a timeout of zero".to_owned()));
        }
        let program = program(&request, limit)?;
        let other = |e: io::Error| (FailureKind::Other, format!("no pipe or process: {e}"));
        let (report, report_write) = sys::pipe().map_err(other)?;
        let (stdout, stdout_write) = sys::pipe().map_err(other)?;
        let (stderr, stderr_write) = sys::pipe().map_err(other)?;
        let (stdin_read, stdin) = if request.stdin {
            let (read, write) = sys::pipe().map_err(other)?;
            sys::set_nonblocking(write.as_raw_fd()).map_err(other)?;
            (read, Some(write))
        } else {
            (File::open("/dev/null").map_err(other)?.into(), None)
        };
        for fd in [&stdout, &stderr, &report] {
            sys::set_nonblocking(fd.as_raw_fd()).map_err(other)?;
        }
        let stdio = Stdio {
            stdin: stdin_read,
            stdout: stdout_write,
            stderr: stderr_write,
        };
        let keeper = keeper::spawn(&program, stdio, report_write).map_err(other)?;
        let stream = |kind, fd| Stream {
            kind,
            fd: Some(fd),
            left: None,
        };
        Ok(Self {
            id: request.id,
            keeper,
            report: Some(report),
            stdin,
            pending: VecDeque::new(),
            owed: 0,
            eof: false,
            stdout: stream(FrameKind::Stdout, stdout),
            stderr: stream(FrameKind::Stderr, stderr),
            credit: INITIAL_CREDIT,
            deadline: request
                .timeout_ms
                .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
            killed: None,
            status: None,
            told: false,
            unheard: false,
            keeper_gone: false,
        })
    }

    pub(crate) fn keeper(&self) -> Pid {
        self.keeper
    }

    /// Whether what runs below the keeper may go on running.
    pub(crate) fn is_healthy(&self) -> bool {
        self.killed.is_none() && !self.keeper_gone
    }

    /// Whether a sweep should leave the keeper alone so that it can still report.
    pub(crate) fn spares_keeper(&self, now: Instant) -> bool {
        !self.keeper_gone && self.killed.is_none_or(|k| now < k.at + KEEPER_GRACE)
    }

    /// Whether nothing of the command is left and the host knows.
    pub(crate) fn is_over(&self) -> bool {
        self.told && self.keeper_gone
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.is_healthy() && !self.told)
    }

    /// Whether its tree is being killed and not yet gone.
    pub(crate) fn is_dying(&self) -> bool {
        self.killed.is_some() && !self.keeper_gone
    }

    /// Its time is up: the tree must go, what it printed still reaches the host.
    pub(crate) fn time_out(&mut self) {
        self.condemn(true);
    }

    /// The host wants no more of it: the tree must go and its output with it.
    pub(crate) fn kill(&mut self) {
        self.condemn(false);
        self.unheard = true;
    }

    fn condemn(&mut self, timed_out: bool) {
        if self.killed.is_none() {
            let at = Instant::now();
            self.killed = Some(Killed { timed_out, at });
        }
    }

    pub(crate) fn keeper_ended(&mut self) {
        self.keeper_gone = true;
        self.note_end();
    }

    /// From here on only what is in the pipes already counts as the command's output.
    fn note_end(&mut self) {
        for stream in [&mut self.stdout, &mut self.stderr] {
            if stream.left.is_none() {
                stream.left = stream.fd.as_ref().map(|fd| sys::bytes_waiting(fd.as_fd()));
            }
        }
    }

    pub(crate) fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// The descriptors to wait for, with what to wait for.
    pub(crate) fn interests(&self, room: bool) -> Vec<(Part, RawFd, i16)> {
        let mut out = Vec::with_capacity(4);
        if let Some(fd) = &self.report {
            out.push((Part::Report, fd.as_raw_fd(), libc::POLLIN));
        }
        if let Some(fd) = &self.stdin {
            // Without bytes to write only POLLERR matters: the command closed its input.
            let events = if self.pending.is_empty() { 0 } else { libc::POLLOUT };
            out.push((Part::Stdin, fd.as_raw_fd(), events));
        }
        let flows = room && self.credit > data_cost(0);
        for (part, stream) in [(Part::Stdout, &self.stdout), (Part::Stderr, &self.stderr)] {
            if let Some(fd) = &stream.fd
                && (flows || self.told)
                && (self.told || stream.left != Some(0))
            {
                out.push((part, fd.as_raw_fd(), libc::POLLIN));
            }
        }
        out
    }

    /// Handles readiness of one descriptor.
    pub(crate) fn ready(&mut self, part: Part, conn: &mut Conn) {
        match part {
            Part::Report => self.read_report(conn),
            Part::Stdin => self.write_stdin(conn),
            Part::Stdout => self.read_output(Part::Stdout, conn),
            Part::Stderr => self.read_output(Part::Stderr, conn),
        }
    }

    fn read_report(&mut self, conn: &mut Conn) {
        let Some(fd) = &self.report else { return };
        let mut bytes = [0; REPORT_LEN];
        match sys::read(fd.as_raw_fd(), &mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(REPORT_LEN) => match Report::decode(bytes) {
                Some(Report::Started) => conn.send(&FromGuest::Started { id: self.id }),
                Some(Report::Refused(step, errno)) => {
                    let (kind, message) = refusal(step, errno);
                    conn.fail(self.id, kind, message);
                    self.told = true;
                }
                Some(Report::Exited(status)) => {
                    self.status = Some(match sys::signal_or_code(status) {
                        Ok(code) => ExitStatus::Code(code),
                        Err(signal) => ExitStatus::Signal(signal),
                    });
                    self.note_end();
                }
                None => self.report = None,
            },
            _ => self.report = None,
        }
    }

    fn read_output(&mut self, part: Part, conn: &mut Conn) {
        let stream = match part {
            Part::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        };
        let Some(fd) = &stream.fd else { return };
        let mut buffer = [0; CHUNK];
        let mut most = CHUNK;
        if !self.told {
            let credit = usize::try_from(self.credit.saturating_sub(data_cost(0)));
            most = most.min(credit.unwrap_or(CHUNK));
            most = most.min(stream.left.unwrap_or(CHUNK));
        }
        if most == 0 {
            return;
        }
        match sys::read(fd.as_raw_fd(), &mut buffer[..most]) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.left = stream.left.map(|_| 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                stream.fd = None;
                stream.left = stream.left.map(|_| 0);
            }
            // The host knows of the end: what background processes still print is dropped,
            // so that they neither block nor die of a closed pipe.
            Ok(_) if self.told => {}
            Ok(n) => {
                conn.send_data(stream.kind, self.id, &buffer[..n]);
                self.credit = self.credit.saturating_sub(data_cost(n));
                stream.left = stream.left.map(|left| left.saturating_sub(n));
            }
        }
    }

    /// Takes input from the host.
    pub(crate) fn input(&mut self, bytes: &[u8], conn: &mut Conn) {
        self.owed += data_cost(bytes.len());
        if self.stdin.is_some() {
            self.pending.extend(bytes);
            self.write_stdin(conn);
        } else {
            self.repay(conn);
        }
    }

    pub(crate) fn input_eof(&mut self) {
        self.eof = true;
        if self.pending.is_empty() {
            self.stdin = None;
        }
    }

    fn write_stdin(&mut self, conn: &mut Conn) {
        let Some(fd) = &self.stdin else { return };
        while !self.pending.is_empty() {
            match sys::write(fd.as_raw_fd(), self.pending.as_slices().0) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.pending.clear();
                    self.eof = true;
                }
            }
        }
        if self.eof {
            self.stdin = None;
        }
        self.repay(conn);
    }

    /// The command closed its end of the input pipe.
    pub(crate) fn input_refused(&mut self, conn: &mut Conn) {
        self.stdin = None;
        self.pending.clear();
        self.repay(conn);
    }

    fn repay(&mut self, conn: &mut Conn) {
        if self.owed > 0 {
            let bytes = std::mem::take(&mut self.owed);
            conn.send(&FromGuest::StdinCredit { id: self.id, bytes });
        }
    }

    /// Tells the host of the end once it is certain and all output is sent.
    pub(crate) fn conclude(&mut self, conn: &mut Conn) {
        if self.told {
            return;
        }
        let drained = |s: &Stream| s.fd.is_none() || s.left == Some(0);
        let status = match (self.killed, self.status) {
            // A kill is over when its keeper, and so the whole tree, is gone.
            (Some(_), _) if !self.keeper_gone => return,
            (Some(Killed { timed_out: true, .. }), _) => ExitStatus::TimedOut,
            (_, Some(status)) => status,
            // The keeper died before it could say: the agent killed it, or we did.
            (_, None) if self.keeper_gone => ExitStatus::Signal(libc::SIGKILL),
            _ => return,
        };
        if !(self.unheard || drained(&self.stdout) && drained(&self.stderr)) {
            return;
        }
        self.told = true;
        self.stdin = None;
        self.pending.clear();
        conn.exited(self.id, status);
    }
}

fn program(request: &ExecStart, limit: ProcessLimit) -> Result<Program, (FailureKind, String)> {
    let text = |s: String| {
        CString::new(s).map_err(|_| {
            let why = "a NUL byte in an argument or in the environment";
            (FailureKind::Invalid, why.to_owned())
        })
    };
    let Some(name) = request.argv.first().filter(|name| !name.is_empty()) else {
        return Err((FailureKind::Invalid, "no program named".to_owned()));
    };
    let candidates = if name.contains('/') {
        vec![text(name.clone())?]
    } else {
        let path = request.env.get("PATH").map_or("/usr/bin:/bin", String::as_str);
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| text(format!("{dir}/{name}")))
            .collect::<Result<_, _>>()?
    };
    let env = request.env.iter().map(|(k, v)| text(format!("{k}={v}")));
    Ok(Program {
        candidates,
        argv: request.argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
        env: env.collect::<Result<_, _>>()?,
        cwd: request.cwd.clone(),
        limit,
    })
}

fn refusal(step: Step, errno: i32) -> (FailureKind, String) {
    let cause = io::Error::from_raw_os_error(errno);
    let kind = match (step, errno) {
        (Step::Exec | Step::Chdir, libc::ENOENT | libc::ENOTDIR) => FailureKind::NotFound,
        _ => FailureKind::Other,
    };
    let what = match step {
        Step::Fork => "no new process",
        Step::Prepare => "could not prepare the process",
        Step::Chdir => "working directory",
        Step::Exec => "program",
    };
    (kind, format!("{what}: {cause}"))
}
