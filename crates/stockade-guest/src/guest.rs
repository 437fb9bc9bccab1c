//! The loop: one thread, one poll.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use stockade_guest_proto::{FailureKind, Frame, FrameKind, FromGuest, PROTOCOL_VERSION, ToGuest};

use crate::{
    confine,
    conn::Conn,
    ending::Ending,
    exec::{Exec, Part},
    jobs::Jobs,
    landlock, probe,
    sweep::sweep,
    sys::{self, ProcessLimit},
};

/// Pause between two sweeps while something is dying.
const SWEEP_EVERY: Duration = Duration::from_millis(4);

/// Everything pid 1 knows.
pub(crate) struct Guest {
    conn: Conn,
    children: OwnedFd,
    limit: ProcessLimit,
    execs: BTreeMap<u32, Exec>,
    jobs: Jobs,
    /// Everything was asked to end.
    ending: Option<Ending>,
    /// Whether keepers adopt the orphans below them.
    keepers_adopt: bool,
    /// Processes were orphaned whose keeper is dead; they are to be found and killed.
    orphans: bool,
}

/// What one slot of the poll table stands for.
enum Waiting {
    HostInput,
    HostOutput,
    Children,
    Exec(u32, Part),
    Job(u32),
}

impl Guest {
    pub(crate) fn new() -> io::Result<Self> {
        sys::set_non_dumpable()?;
        sys::set_name(c"stockade-guest");
        Ok(Self {
            children: sys::child_signal_fd()?,
            limit: sys::split_process_limit()?,
            keepers_adopt: sys::has_subreapers(),
            conn: Conn::new()?,
            execs: BTreeMap::new(),
            jobs: Jobs::default(),
            ending: None,
            orphans: false,
        })
    }

    /// Serves until the host says so or is gone.
    pub(crate) fn run(mut self, settled: bool) -> io::Result<()> {
        self.conn.send(&FromGuest::Hello {
            version: PROTOCOL_VERSION,
        });
        if settled {
            self.conn.flush()?;
            // While the host reads this. The probe says what came of it.
            let _ = landlock::enter();
        }
        loop {
            self.conn.flush()?;
            let (mut fds, waiting) = self.poll_table();
            sys::poll(&mut fds, self.wait_ms())?;
            for (fd, waiting) in fds.iter().zip(waiting) {
                if fd.revents != 0 && !self.ready(&waiting, fd.revents)? {
                    return Ok(());
                }
            }
            self.jobs.step(&mut self.conn);
            self.time_out();
            for exec in self.execs.values_mut() {
                exec.conclude(&mut self.conn);
            }
            self.kill_what_must_die();
            self.look_for_the_end();
            self.execs.retain(|_, exec| !exec.is_over());
        }
    }

    fn poll_table(&self) -> (Vec<libc::pollfd>, Vec<Waiting>) {
        let mut fds = Vec::new();
        let mut waiting = Vec::new();
        let mut add = |fd, events, what| {
            fds.push(libc::pollfd { fd, events, revents: 0 });
            waiting.push(what);
        };
        add(0, libc::POLLIN, Waiting::HostInput);
        if self.conn.has_output() {
            add(1, libc::POLLOUT, Waiting::HostOutput);
        }
        add(self.children.as_raw_fd(), libc::POLLIN, Waiting::Children);
        let room = self.conn.has_room();
        for (id, exec) in &self.execs {
            for (part, fd, events) in exec.interests(room) {
                add(fd, events, Waiting::Exec(*id, part));
            }
        }
        if room {
            for (id, fd) in self.jobs.interests() {
                add(fd, libc::POLLIN, Waiting::Job(id));
            }
        }
        (fds, waiting)
    }

    fn wait_ms(&self) -> i32 {
        let room = self.conn.has_room();
        if room && self.jobs.is_runnable() {
            return 0;
        }
        let now = Instant::now();
        let dying = self.orphans || self.execs.values().any(Exec::is_dying);
        let sweep = dying.then_some(SWEEP_EVERY);
        let deadline = self.execs.values().filter_map(Exec::deadline).min();
        let look = self.execs.values().filter_map(|exec| exec.look_at(room)).min();
        let from_now = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let ending = self.ending.as_ref().and_then(|ending| ending.wait(now));
        let all = [sweep, from_now(deadline), from_now(look), ending];
        match all.into_iter().flatten().min() {
            // Rounded up, or the last millisecond would spin.
            Some(wait) => i32::try_from(wait.as_millis()).unwrap_or(i32::MAX - 1) + 1,
            None => -1,
        }
    }

    /// Handles one ready descriptor; `false` ends the Guest.
    fn ready(&mut self, waiting: &Waiting, revents: i16) -> io::Result<bool> {
        match waiting {
            Waiting::HostOutput => self.conn.flush()?,
            Waiting::Children => self.reap(),
            Waiting::Job(id) => self.jobs.ready(*id, &mut self.conn),
            Waiting::Exec(id, part) => {
                if let Some(exec) = self.execs.get_mut(id) {
                    if *part == Part::Stdin && revents & libc::POLLERR != 0 {
                        exec.input_refused(&mut self.conn);
                    } else {
                        exec.ready(*part, &mut self.conn);
                    }
                }
            }
            Waiting::HostInput => {
                if !self.conn.receive()? {
                    return Ok(false);
                }
                while let Some(frame) = self.conn.next_frame()? {
                    if !self.frame(&frame)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn frame(&mut self, frame: &Frame) -> io::Result<bool> {
        match frame.kind {
            FrameKind::Control => {
                let message = serde_json::from_slice(&frame.payload)?;
                return Ok(self.message(message));
            }
            FrameKind::Stdin => {
                if let Some(exec) = self.execs.get_mut(&frame.stream) {
                    exec.input(&frame.payload, &mut self.conn);
                }
            }
            FrameKind::File => self.jobs.input(frame.stream, &frame.payload, &mut self.conn),
            FrameKind::Stdout | FrameKind::Stderr => {}
        }
        Ok(true)
    }

    fn message(&mut self, message: ToGuest) -> bool {
        match message {
            ToGuest::Hello { version } if version != PROTOCOL_VERSION => return false,
            ToGuest::Shutdown => return false,
            ToGuest::Hello { .. } | ToGuest::Unknown => {}
            ToGuest::Ping { id } => self.conn.send(&FromGuest::Pong { id }),
            ToGuest::Room { id } => {
                let full = probe::is_full();
                self.conn.send(&FromGuest::Room { id, full });
            }
            ToGuest::Probe(start) => probe::run(&start, self.limit, &mut self.conn),
            ToGuest::Confine { id, filters } => confine::run(id, &filters, &mut self.conn),
            ToGuest::Exec(request) => self.start(request),
            ToGuest::StdinEof { id } => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.input_eof();
                }
            }
            ToGuest::Credit { id, bytes } => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.add_credit(bytes);
                }
                self.jobs.add_credit(id, bytes);
            }
            ToGuest::Kill { id } => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.kill();
                }
            }
            ToGuest::Signal { id, number } => {
                if let Some(exec) = self.execs.get(&id) {
                    exec.signal(number);
                }
            }
            ToGuest::Resize { id, size } => {
                if let Some(exec) = self.execs.get(&id) {
                    exec.resize(size);
                }
            }
            ToGuest::Terminate { id, grace_ms } => {
                self.ending = Some(Ending::new(id, Duration::from_millis(grace_ms)));
            }
            about_files => self.jobs.message(about_files, &mut self.conn),
        }
        true
    }

    fn start(&mut self, request: stockade_guest_proto::ExecStart) {
        let id = request.id;
        if self.execs.contains_key(&id) {
            let why = format!("request {id} is in use");
            return self.conn.fail(id, FailureKind::Invalid, why);
        }
        if self.ending.is_some() {
            let why = "everything was asked to end".to_owned();
            return self.conn.fail(id, FailureKind::Other, why);
        }
        if let Err(e) = landlock::enter() {
            return self
                .conn
                .fail(id, FailureKind::Other, format!("enter the Landlock domain: {e}"));
        }
        match Exec::start(request, self.limit) {
            Ok(exec) => drop(self.execs.insert(id, exec)),
            Err((kind, message)) => self.conn.fail(id, kind, message),
        }
    }

    fn time_out(&mut self) {
        let now = Instant::now();
        for exec in self.execs.values_mut() {
            if exec.deadline().is_some_and(|at| at <= now) {
                exec.time_out();
            }
        }
    }

    fn reap(&mut self) {
        let mut drain = [0; 128 * 8];
        while sys::read(self.children.as_raw_fd(), &mut drain).is_ok_and(|n| n > 0) {}
        while let Ok(Some(ended)) = sys::reap(false) {
            let exec = self.execs.values_mut().find(|e| e.keeper() == ended.pid);
            let clean = sys::signal_or_code(ended.status) == Ok(0);
            if let Some(exec) = exec {
                // Reports written before the end are still in the pipe.
                for _ in 0..3 {
                    exec.ready(Part::Report, &mut self.conn);
                }
                exec.keeper_ended();
                self.orphans |= !clean;
            } else {
                // Where keepers adopt, only the children of a dead one become ours.
                self.orphans |= self.keepers_adopt;
            }
        }
    }

    fn kill_what_must_die(&mut self) {
        let dying = self.execs.values().any(Exec::is_dying);
        if !dying && !self.orphans {
            return;
        }
        let now = Instant::now();
        let keepers = |wanted: &dyn Fn(&Exec) -> bool| -> HashSet<_> {
            let of = self.execs.values().filter(|e| wanted(e));
            of.map(Exec::keeper).collect()
        };
        let healthy = keepers(&Exec::is_healthy);
        let spare = keepers(&|e| e.spares_keeper(now));
        let sessions = self.execs.values().filter(|_| !self.keepers_adopt);
        let sessions = sessions.filter_map(Exec::healthy_session).collect();
        self.orphans = sweep(&healthy, &spare, &sessions) > 0;
    }

    fn look_for_the_end(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        let keepers = self.execs.values().map(Exec::keeper).collect();
        let all_told = self.execs.values().all(Exec::is_told);
        if let Some(id) = ending.look(&keepers, all_told) {
            self.conn.send(&FromGuest::Done { id });
        }
    }
}
