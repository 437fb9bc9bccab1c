//! One running command as the Guest sees it: its streams, its credit and its end.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use stockade_guest_proto::{
    ExecStart, ExitStatus, FailureKind, FrameKind, FromGuest, INITIAL_CREDIT, TerminalSize, data_cost,
};

use crate::{
    conn::Conn,
    input::Input,
    keeper::{self, Program, REPORT_LEN, Report, Stdio, Step},
    output::{CHUNK, Piece, Stream},
    sweep,
    sys::{self, Pid, ProcessLimit},
    terminal::{self, Terminal},
};

/// How long a keeper may take to report the end of a killed tree before it is killed itself.
const KEEPER_GRACE: Duration = Duration::from_millis(300);

/// One command.
pub(crate) struct Exec {
    id: u32,
    keeper: Pid,
    /// The command's own process, once it runs.
    command: Option<Pid>,
    report: Option<OwnedFd>,
    input: Input,
    stdout: Stream,
    stderr: Stream,
    /// Whether the kernel signals a new size.
    tells_size: bool,
    credit: u64,
    /// Bytes it may still print.
    allowed: Option<u64>,
    deadline: Option<Instant>,
    killed: Option<Killed>,
    status: Option<ExitStatus>,
    told: bool,
    /// Nobody wants what it still prints.
    unheard: bool,
    keeper_gone: bool,
}

#[derive(Clone, Copy)]
struct Killed {
    why: Why,
    at: Instant,
}

/// Why a command must go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Host,
    Time,
    Output,
}

/// Which descriptors of a command the loop waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Report,
    Stdin,
    Stdout,
    Stderr,
}

/// Both ends of a command's streams.
struct Ends {
    stdio: Stdio,
    input: Input,
    stdout: Stream,
    stderr: Stream,
    tells_size: bool,
}

impl Exec {
    /// Starts a command. The host hears of the outcome by `Started` or `Failed`.
    pub(crate) fn start(request: ExecStart, limit: ProcessLimit) -> Result<Self, (FailureKind, String)> {
        for (zero, what) in [
            (request.timeout_ms == Some(0), "a timeout of zero"),
            (request.max_output == Some(0), "an output limit of zero"),
            (request.terminal.is_some_and(is_empty), "a terminal of size zero"),
        ] {
            if zero {
                return Err((FailureKind::Invalid, what.to_owned()));
            }
        }
        let program = program(&request, limit)?;
        let other = |e: io::Error| (FailureKind::Other, format!("no pipe, socket or process: {e}"));
        let (report, report_write) = sys::line().map_err(other)?;
        sys::set_nonblocking(report.as_raw_fd()).map_err(other)?;
        let ends = match request.terminal {
            Some(size) => on_terminal(size).map_err(|e| {
                let why = format!("this sandbox gives no pseudo-terminal: {e}");
                (FailureKind::Other, why)
            })?,
            None => on_pipes(request.stdin).map_err(other)?,
        };
        let keeper = keeper::spawn(&program, ends.stdio, report_write).map_err(other)?;
        let timeout = request.timeout_ms.map(Duration::from_millis);
        Ok(Self {
            id: request.id,
            keeper,
            command: None,
            report: Some(report),
            input: ends.input,
            stdout: ends.stdout,
            stderr: ends.stderr,
            tells_size: ends.tells_size,
            credit: INITIAL_CREDIT,
            allowed: request.max_output,
            deadline: timeout.and_then(|time| Instant::now().checked_add(time)),
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

    /// The session of the command, whose processes may go on running.
    pub(crate) fn healthy_session(&self) -> Option<Pid> {
        self.command.filter(|_| self.is_healthy())
    }

    /// Whether a sweep should leave the keeper alone so that it can still report.
    pub(crate) fn spares_keeper(&self, now: Instant) -> bool {
        !self.keeper_gone && self.killed.is_none_or(|k| now < k.at + KEEPER_GRACE)
    }

    /// Whether nothing of the command is left and the host knows.
    pub(crate) fn is_over(&self) -> bool {
        self.told && self.keeper_gone
    }

    /// Whether the host knows of its end.
    pub(crate) fn is_told(&self) -> bool {
        self.told
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
        self.condemn(Why::Time);
    }

    /// The host wants no more of it: the tree must go and its output with it.
    pub(crate) fn kill(&mut self) {
        self.condemn(Why::Host);
        self.unheard = true;
    }

    fn condemn(&mut self, why: Why) {
        if self.killed.is_none() {
            let at = Instant::now();
            self.killed = Some(Killed { why, at });
        }
    }

    /// Signals the command's own process, if it still runs.
    pub(crate) fn signal(&self, number: i32) {
        // Once it was reaped its pid may be another process's, which has another parent.
        if let Some(pid) = self.command.filter(|_| self.status.is_none() && !self.keeper_gone)
            && sweep::parent(pid) == Some(self.keeper)
        {
            sys::signal(pid, number);
        }
    }

    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = self.stdout.open_terminal()
            && !is_empty(size)
        {
            // It fails only when it is being closed.
            let resized = terminal::resize(terminal.as_fd(), size);
            if resized.is_ok() && !self.tells_size {
                self.signal(libc::SIGWINCH);
            }
        }
    }

    pub(crate) fn keeper_ended(&mut self) {
        self.keeper_gone = true;
        self.note_end();
    }

    /// From here on only what was printed by now counts as the command's output.
    fn note_end(&mut self) {
        let now = Instant::now();
        self.stdout.note_end(now);
        self.stderr.note_end(now);
    }

    pub(crate) fn add_credit(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
    }

    /// Whether its output may flow.
    fn flows(&self, room: bool) -> bool {
        room && self.credit > data_cost(0) && !self.unheard
    }

    /// The descriptors to wait for, with what to wait for.
    pub(crate) fn interests(&self, room: bool) -> Vec<(Part, RawFd, i16)> {
        let mut out = Vec::with_capacity(4);
        if let Some(fd) = &self.report {
            out.push((Part::Report, fd.as_raw_fd(), libc::POLLIN));
        }
        if let Some((fd, events)) = self.input.interest() {
            out.push((Part::Stdin, fd, events));
        }
        for (part, stream) in [(Part::Stdout, &self.stdout), (Part::Stderr, &self.stderr)] {
            if let Some(fd) = stream.fd()
                && (self.told || self.flows(room) && !stream.is_drained())
            {
                out.push((part, fd, libc::POLLIN));
            }
        }
        out
    }

    /// When to look at its output although nothing has arrived.
    pub(crate) fn look_at(&self, room: bool) -> Option<Instant> {
        let looks = self.flows(room) && !self.told;
        looks.then(|| self.stdout.look_at()).flatten()
    }

    /// Handles readiness of one descriptor.
    pub(crate) fn ready(&mut self, part: Part, conn: &mut Conn) {
        match part {
            Part::Report => self.read_report(conn),
            Part::Stdin => {
                self.input.write();
                self.repay(conn);
            }
            Part::Stdout | Part::Stderr => self.read_output(part, conn),
        }
    }

    fn read_report(&mut self, conn: &mut Conn) {
        let Some(fd) = &self.report else { return };
        let mut bytes = [0; REPORT_LEN];
        match sys::read(fd.as_raw_fd(), &mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(REPORT_LEN) => match Report::decode(bytes) {
                Some(Report::Started(pid)) => {
                    self.command = Some(pid);
                    conn.send(&FromGuest::Started { id: self.id });
                }
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
        let mut buffer = [0; CHUNK];
        if self.told {
            return stream.discard(&mut buffer);
        }
        let credit = usize::try_from(self.credit.saturating_sub(data_cost(0))).unwrap_or(CHUNK);
        // One byte more than allowed is what shows that it is too much.
        let allowed = self
            .allowed
            .and_then(|allowed| usize::try_from(allowed.saturating_add(1)).ok());
        let most = CHUNK.min(credit).min(allowed.unwrap_or(CHUNK));
        let Piece::Bytes(read) = stream.read(&mut buffer[..most], Instant::now()) else {
            return;
        };
        let n = self
            .allowed
            .map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        self.allowed = self.allowed.map(|left| left.saturating_sub(n as u64));
        if n > 0 {
            conn.send_data(stream.kind, self.id, &buffer[..n]);
            self.credit = self.credit.saturating_sub(data_cost(n));
        }
        if n < read {
            self.condemn(Why::Output);
            self.unheard = true;
        }
    }

    /// Takes input from the host.
    pub(crate) fn input(&mut self, bytes: &[u8], conn: &mut Conn) {
        self.input.take(bytes);
        self.repay(conn);
    }

    pub(crate) fn input_eof(&mut self) {
        self.input.end();
    }

    /// The command closed its end of the input pipe.
    pub(crate) fn input_refused(&mut self, conn: &mut Conn) {
        self.input.close();
        self.repay(conn);
    }

    fn repay(&mut self, conn: &mut Conn) {
        if let Some(bytes) = self.input.repay() {
            conn.send(&FromGuest::StdinCredit { id: self.id, bytes });
        }
    }

    /// Tells the host of the end once it is certain and all output is sent.
    pub(crate) fn conclude(&mut self, conn: &mut Conn) {
        if self.told {
            return;
        }
        if self.stdout.look_at().is_some_and(|at| at <= Instant::now()) && self.flows(conn.has_room()) {
            self.read_output(Part::Stdout, conn);
        }
        let status = match (self.killed, self.status) {
            // A kill is over when its keeper, and so the whole tree, is gone.
            (Some(_), _) if !self.keeper_gone => return,
            (Some(Killed { why: Why::Time, .. }), _) => ExitStatus::TimedOut,
            (Some(Killed { why: Why::Output, .. }), _) => ExitStatus::OutputLimit,
            (_, Some(status)) => status,
            // The keeper died before it could say: the agent killed it, or we did.
            (_, None) if self.keeper_gone => ExitStatus::Signal(libc::SIGKILL),
            _ => return,
        };
        if !(self.unheard || self.stdout.is_drained() && self.stderr.is_drained()) {
            return;
        }
        self.told = true;
        self.input.close();
        conn.exited(self.id, status);
    }
}

fn is_empty(size: TerminalSize) -> bool {
    size.rows == 0 || size.cols == 0
}

fn on_pipes(with_input: bool) -> io::Result<Ends> {
    let (stdout, stdout_write) = sys::pipe()?;
    let (stderr, stderr_write) = sys::pipe()?;
    let (stdin, input) = if with_input {
        let (read, write) = sys::pipe()?;
        sys::set_nonblocking(write.as_raw_fd())?;
        (read, Some(write))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    for fd in [&stdout, &stderr] {
        sys::set_nonblocking(fd.as_raw_fd())?;
    }
    Ok(Ends {
        stdio: Stdio {
            stdin,
            stdout: stdout_write,
            stderr: stderr_write,
            terminal: false,
        },
        input: Input::new(input, false),
        stdout: Stream::pipe(FrameKind::Stdout, stdout),
        stderr: Stream::pipe(FrameKind::Stderr, stderr),
        tells_size: true,
    })
}

fn on_terminal(size: TerminalSize) -> io::Result<Ends> {
    let Terminal {
        ours,
        theirs,
        tells_size,
    } = terminal::open(size)?;
    Ok(Ends {
        stdio: Stdio {
            stdin: theirs.try_clone()?,
            stdout: theirs.try_clone()?,
            stderr: theirs,
            terminal: true,
        },
        input: Input::new(Some(ours.try_clone()?), true),
        stdout: Stream::terminal(ours),
        stderr: Stream::none(),
        tells_size,
    })
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
