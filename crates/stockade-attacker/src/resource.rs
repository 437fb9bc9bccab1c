//! Using more than one's share. Each takes what it is told to take and no more, says how far it
//! came, and lets go.
#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use crate::{
    args::Args,
    sys::{alarm, exit, fork, kill, owned, try_call, wait},
    tell::{Outcome, Refusal, attempt, count, refused},
};

/// Tells how far it came, and whether that was all the way.
fn tell(name: &str, reached: u64, wanted: u64, stopped: Option<Refusal>) {
    count(name, reached);
    attempt(
        name,
        match stopped {
            None if reached >= wanted => Ok(format!("took all {wanted}")),
            None => refused(format!("came to {reached} of {wanted}")),
            Some(Refusal { errno, why }) => Err(Refusal {
                errno,
                why: format!("stopped at {reached} of {wanted}: {why}"),
            }),
        },
    );
}

/// Takes one more, again and again: until it has `number=`, or, once it is refused, for `hold=`
/// milliseconds more, as something that does not know its limit would. The last refusal.
fn take(args: &Args, mut taken: impl FnMut() -> u64, mut more: impl FnMut() -> Result<(), Refusal>) -> Option<Refusal> {
    let wanted = args.number("number");
    let hold = Duration::from_millis(args.number("hold"));
    let mut first: Option<Instant> = None;
    let mut refused = None;
    while taken() < wanted {
        match more() {
            Ok(()) => {}
            Err(refusal) => {
                refused = Some(refusal);
                if first.get_or_insert_with(Instant::now).elapsed() >= hold {
                    break;
                }
            }
        }
    }
    refused
}

/// Starts `number=` processes that stay, each of which would do the same.
pub(crate) fn forks(args: &Args) {
    copies(args, "processes", || {
        alarm(20);
        loop {
            let _ = try_call(libc::SYS_pause, &[]);
        }
    });
}

/// Starts `number=` processes that end at once and that nobody waits for.
pub(crate) fn zombies(args: &Args) {
    copies(args, "zombies", || exit(0));
}

fn copies(args: &Args, name: &str, child: impl Fn()) {
    let children = RefCell::new(Vec::new());
    let count = || children.borrow().len() as u64;
    let stopped = take(args, count, || match fork() {
        Ok(Some(pid)) => {
            children.borrow_mut().push(pid);
            Ok(())
        }
        Ok(None) => {
            child();
            exit(0)
        }
        Err(errno) => Err(errno.into()),
    });
    tell(name, count(), args.number("number"), stopped);
    for pid in children.take() {
        if kill(pid, libc::SIGKILL).is_ok() {
            wait(pid);
        }
    }
}

/// Starts `number=` threads that stay.
pub(crate) fn threads(args: &Args) {
    let started = Cell::new(0);
    let stopped = take(
        args,
        || started.get(),
        || {
            let idle = || thread::sleep(Duration::from_secs(20));
            thread::Builder::new().stack_size(16 << 10).spawn(idle)?;
            started.set(started.get() + 1);
            Ok(())
        },
    );
    tell("threads", started.get(), args.number("number"), stopped);
}

/// Takes `bytes=` of memory, a MiB at a time, and writes to each page. At `at=` it writes to what
/// it has for `hold=` milliseconds before it goes on.
pub(crate) fn memory(args: &Args) {
    const STEP: usize = 1 << 20;
    let wanted = args.number("bytes");
    let mut taken = 0_u64;
    let mut stopped = None;
    while taken < wanted {
        if taken > 0 && taken == args.number("at") {
            rewrite(Duration::from_millis(args.number("hold")));
        }
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        match try_call(libc::SYS_mmap, &[0, STEP, protection, flags, usize::MAX, 0]) {
            Ok(place) => {
                // SAFETY: the kernel just gave these bytes to nobody but us.
                unsafe { std::ptr::write_bytes(place as *mut u8, 0x5a, STEP) };
                taken += STEP as u64;
            }
            Err(errno) => {
                stopped = Some(errno.into());
                break;
            }
        }
    }
    tell("memory", taken, wanted, stopped);
}

/// Takes a little memory, writes to it and gives it back, over and over.
fn rewrite(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let _ = std::hint::black_box(vec![0x5a_u8; 4 << 20]);
    }
}

/// Writes `bytes=` into a file in every `dir=`; once it is full, for `hold=` milliseconds more.
pub(crate) fn fill(args: &Args) {
    let wanted = args.number("bytes");
    let block = vec![0x5a_u8; 1 << 20];
    for dir in args.all("dir") {
        let path = format!("{dir}/fill-{}", std::process::id());
        let mut written = 0_u64;
        let pour = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            while written < wanted {
                file.write_all(&block)?;
                written += block.len() as u64;
            }
            Ok(())
        };
        let mut pour = pour;
        let stopped = pour().err().map(Refusal::from);
        let full = Instant::now();
        while stopped.is_some() && full.elapsed() < Duration::from_millis(args.number("hold")) {
            let _ = File::options()
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(&block));
        }
        let _ = fs::remove_file(&path);
        tell(&format!("bytes:{}", args.get("label")), written, wanted, stopped);
    }
}

/// Makes `number=` empty files in every `dir=`.
pub(crate) fn inodes(args: &Args) {
    let wanted = args.number("number");
    for dir in args.all("dir") {
        let place = format!("{dir}/inodes-{}", std::process::id());
        let made = Cell::new(0);
        let mut stopped = fs::create_dir(&place).err().map(Refusal::from);
        if stopped.is_none() {
            stopped = take(
                args,
                || made.get(),
                || {
                    File::create_new(format!("{place}/{}", made.get()))?;
                    made.set(made.get() + 1);
                    Ok(())
                },
            );
        }
        let _ = fs::remove_dir_all(&place);
        tell("files", made.get(), wanted, stopped);
    }
}

/// Opens `number=` descriptors, as many as the hard limit lets it.
pub(crate) fn descriptors(args: &Args) {
    let wanted = args.number("number");
    let mut limits = [0_u64; 2];
    let place = limits.as_mut_ptr() as usize;
    let files = libc::RLIMIT_NOFILE as usize;
    if try_call(libc::SYS_prlimit64, &[0, files, 0, place]).is_ok() {
        // Beyond the hard limit where that is allowed, up to it where it is not.
        for limit in [wanted + 64, limits[1]] {
            let raised = [limit, limit];
            if try_call(libc::SYS_prlimit64, &[0, files, raised.as_ptr() as usize, 0]).is_ok() {
                break;
            }
        }
    }
    let open = RefCell::new(Vec::new());
    let count = || open.borrow().len() as u64;
    let stopped = take(args, count, || {
        let fd = try_call(libc::SYS_dup, &[1])?;
        open.borrow_mut().push(owned(fd));
        Ok(())
    });
    let reached = count();
    drop(open);
    tell("descriptors", reached, wanted, stopped);
}

/// Prints `bytes=` of noise.
pub(crate) fn flood(args: &Args) {
    let line = [b'x'; 4095].into_iter().chain([b'\n']).collect::<Vec<_>>();
    let mut out = io::stdout().lock();
    let mut printed = 0;
    while printed < args.number("bytes") {
        if out.write_all(&line).is_err() {
            return;
        }
        printed += line.len() as u64;
    }
    let _ = out.flush();
    drop(out);
    attempt("flood", Ok(format!("printed {printed} bytes")));
}

/// Keeps `number=` threads busy for `ms=` and says how much of the processor that was, in
/// thousandths, and how much work was done. With `ordinary=yes` at the usual priority, where it was
/// started at a lower one and may raise it.
pub(crate) fn spin(args: &Args) {
    if args.get("ordinary") == "yes" {
        let _ = try_call(libc::SYS_setpriority, &[0, 0, 0]);
    }
    let time = Duration::from_millis(args.number("ms"));
    let begun = Instant::now();
    let before = consumed();
    let busy: Vec<_> = (0..args.number("number"))
        .map(|_| {
            thread::spawn(move || {
                let mut number = 1_u64;
                let mut rounds = 0_u64;
                while begun.elapsed() < time {
                    for _ in 0..10_000 {
                        number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(7));
                    }
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    let rounds: u64 = busy.into_iter().filter_map(|thread| thread.join().ok()).sum();
    count("rounds", rounds);
    let used = consumed().saturating_sub(before);
    let wall = u64::try_from(begun.elapsed().as_micros()).unwrap_or(1).max(1);
    let millis = used.saturating_mul(1000) / wall;
    count("cpu", millis);
    let wanted = args.number("over");
    let outcome: Outcome = if millis > wanted {
        Ok(format!("used {millis} thousandths of a processor"))
    } else {
        refused(format!("used {millis} thousandths of a processor"))
    };
    attempt("cpu", outcome);
}

/// Microseconds of processor time used so far.
fn consumed() -> u64 {
    let mut time = [0_u64; 2];
    // CLOCK_PROCESS_CPUTIME_ID: seconds and nanoseconds.
    let _ = try_call(libc::SYS_clock_gettime, &[2, time.as_mut_ptr() as usize]);
    time[0] * 1_000_000 + time[1] / 1000
}
