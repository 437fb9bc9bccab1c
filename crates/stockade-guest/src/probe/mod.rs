//! Trying, before there is a command, what a command could do.
//!
//! A forked process takes the place of a command (session, signals, descriptors, limits;
//! whatever confines the Guest confines it) and, instead of executing a program, tries things
//! and writes down what happened. It judges nothing: the host does.

mod calls;
mod kernel;
mod reach;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use stockade_guest_proto::{FailureKind, FromGuest, Observed, ProbeStart};

use crate::{
    conn::Conn,
    landlock,
    sys::{self, Forked, ProcessLimit},
};

/// Seconds after which a probe that hangs is ended by the kernel.
const LONGEST: u32 = 10;
/// Fields of `/proc/self/status` that tell about privileges.
const FIELDS: [&str; 9] = [
    "Uid",
    "Gid",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
];
/// Where a command may write.
const WRITABLE: [&str; 5] = ["/workspace", "/tmp", "/var/tmp", "/home/agent", "/dev/shm"];

/// Probes and answers. The Guest waits: there is nothing else for it to do before the
/// sandbox is released, and the probe ends by itself.
pub(crate) fn run(start: &ProbeStart, limit: ProcessLimit, conn: &mut Conn) {
    let id = start.id;
    // All mounts are there. The probe says what came of it.
    let _ = landlock::enter();
    match in_place_of_a_command(start, limit) {
        Ok(observed) => conn.send(&FromGuest::Probed {
            id,
            observed: Box::new(observed),
        }),
        Err(e) => conn.fail(id, FailureKind::Other, format!("the probe: {e}")),
    }
}

fn in_place_of_a_command(start: &ProbeStart, limit: ProcessLimit) -> io::Result<Observed> {
    let (read, write) = sys::pipe()?;
    let pid = match sys::fork()? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            drop(read);
            sys::exit_now(i32::from(report(start, limit, write).is_err()))
        }
    };
    drop(write);
    let mut json = Vec::new();
    let told = File::from(read).read_to_end(&mut json);
    let status = kernel::wait_for(pid)?;
    told?;
    serde_json::from_slice(&json).map_err(|e| match sys::signal_or_code(status) {
        Err(signal) => io::Error::other(format!("it was ended by signal {signal}")),
        Ok(_) => io::Error::other(format!("it reported nothing: {e}")),
    })
}

/// Takes the place of a command, as the keeper does it, and reports.
fn report(start: &ProbeStart, limit: ProcessLimit, to: OwnedFd) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for fd in 0..3 {
        sys::duplicate(null.as_raw_fd(), fd)?;
    }
    sys::new_session()?;
    sys::close_others(&[to.as_raw_fd()]);
    sys::reset_signals();
    kernel::end_after(LONGEST);
    sys::apply_process_limit(limit)?;
    // As the Guest itself, whose child this is, did before.
    let landlock = landlock::enter().map_err(|e| e.to_string());
    let observed = Observed {
        landlock: Some(landlock),
        ..observe(start)
    };
    let json = serde_json::to_vec(&observed).map_err(io::Error::other)?;
    File::from(to).write_all(&json)
}

fn observe(start: &ProbeStart) -> Observed {
    let begun = Instant::now();
    let mut observed = Observed {
        interfaces: interfaces().ok(),
        status: status(),
        no_new_privs: kernel::has_no_new_privs(),
        rlimits: kernel::resource_limits(),
        disks: disks(),
        ..Observed::default()
    };
    reach::all(start, &mut observed);
    // Last: one that is not refused may change what this process can see.
    observed.calls = calls::all();
    observed.micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    observed
}

/// Names in `/proc/net/dev` (proc(5)): two lines of heading, then `name: counters`.
fn interfaces() -> io::Result<Vec<String>> {
    let text = sys::read_whole("/proc/net/dev")?;
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

fn status() -> BTreeMap<String, String> {
    let text = sys::read_whole("/proc/self/status").unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(name, _)| FIELDS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn disks() -> BTreeMap<String, u64> {
    let size = |path: &&str| Some(((*path).to_owned(), kernel::file_system_size(path)?));
    WRITABLE.iter().filter_map(size).collect()
}

/// Whether no block or no file more fits in one of the places commands may write to.
pub(crate) fn is_full() -> bool {
    WRITABLE.iter().any(|path| kernel::file_system_is_full(path))
}
