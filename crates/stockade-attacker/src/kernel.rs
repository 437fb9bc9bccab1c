//! Parts of the kernel that have been a way out before. Each is used in earnest.

use crate::{
    args::Args,
    sys::{at, c, in_child, minus, owned, try_call},
    tell::{Outcome, attempt},
};

fn descriptor(outcome: Result<usize, i32>) -> Outcome {
    drop(owned(outcome?));
    Ok("it has the descriptor".to_owned())
}

/// Gets a descriptor of each.
pub(crate) fn primitives(_: &Args) {
    for (name, flags) in [
        ("userfaultfd", libc::O_CLOEXEC),
        ("userfaultfd-user-mode", libc::O_CLOEXEC | 1),
    ] {
        let flags = flags as usize;
        attempt(name, in_child(|| descriptor(try_call(libc::SYS_userfaultfd, &[flags]))));
    }
    // struct io_uring_params is 120 bytes.
    let mut params = [0_u64; 15];
    let place = params.as_mut_ptr() as usize;
    attempt(
        "io_uring",
        in_child(|| descriptor(try_call(libc::SYS_io_uring_setup, &[4, place]))),
    );
    // union bpf_attr: an array map of one four-byte value.
    let map = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let map_args = [0, map.as_ptr() as usize, size_of_val(&map)];
    attempt("bpf.map", in_child(|| descriptor(try_call(libc::SYS_bpf, &map_args))));
    attempt("bpf.program", in_child(program));
    attempt("perf_event", in_child(perf));
    let fanotify = [0, libc::O_RDONLY as usize];
    attempt(
        "fanotify",
        in_child(|| descriptor(try_call(libc::SYS_fanotify_init, &fanotify))),
    );
    let anything = [0, 0x4_0000, 0xffff_ffff];
    // Other personalities switch off what makes programs hard to attack.
    for (name, persona) in [("personality.read-implies-exec", 0x40_0000), ("personality.bsd", 6)] {
        debug_assert!(!anything.contains(&persona));
        attempt(
            name,
            in_child(|| crate::sys::attempt(libc::SYS_personality, &[persona])),
        );
    }
    attempt(
        "syslog",
        in_child(|| crate::sys::attempt(libc::SYS_syslog, &[10, 0, 0])),
    );
    let mut time = [0_u64; 2];
    let clock = time.as_mut_ptr() as usize;
    attempt(
        "clock",
        in_child(|| {
            // Sets the clock to what it says.
            try_call(libc::SYS_clock_gettime, &[0, clock])?;
            crate::sys::attempt(libc::SYS_clock_settime, &[0, clock])
        }),
    );
    attempt("hostname", in_child(hostname));
}

/// Sets the host name to what it is, in the namespace it is in.
fn hostname() -> Outcome {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = c(name.trim());
    crate::sys::attempt(libc::SYS_sethostname, &[at(&name), name.as_bytes().len()])
}

/// Loads `r0 = 0; exit` as a socket filter.
fn program() -> Outcome {
    let code = [0x0000_0000_0000_00b7_u64, 0x0000_0000_0000_0095];
    let license = c("GPL");
    let (code, license) = (code.as_ptr() as u64, license.as_ptr() as u64);
    // prog_type 1, insn_cnt 2, insns, license, log_level, log_size, log_buf …
    let attr = [1_u64 | 2 << 32, code, license, 0, 0, 0, 0, 0];
    descriptor(try_call(
        libc::SYS_bpf,
        &[5, attr.as_ptr() as usize, size_of_val(&attr)],
    ))
}

/// Counts this process's own page faults (a software event, which every machine has).
fn perf() -> Outcome {
    // struct perf_event_attr, 128 bytes: type 1 (software), size, config 2 (page faults);
    // then user space only.
    let mut attr = [0_u64; 16];
    attr[0] = 1 | 128 << 32;
    attr[1] = 2;
    attr[5] = 0x60;
    let args = [attr.as_ptr() as usize, 0, minus(1), minus(1), 0];
    descriptor(try_call(libc::SYS_perf_event_open, &args))
}

/// Keyrings belong to users, not to containers: makes a key, lists keys, and looks for the one
/// called `token=` that the red team planted.
pub(crate) fn keys(args: &Args) {
    const THREAD: i32 = 1;
    const USER: i32 = 4;
    const SESSION: i32 = 3;
    let (kind, name) = (c("user"), c(&format!("stockade-redteam-{}", std::process::id())));
    let add = || crate::sys::attempt(libc::SYS_add_key, &[at(&kind), at(&name), at(&name), 4, minus(THREAD)]);
    attempt("add_key", in_child(add));
    let describe = |ring: i32| -> Outcome {
        let mut text = vec![0_u8; 256];
        // KEYCTL_DESCRIBE.
        let args = [6, minus(ring), text.as_mut_ptr() as usize, text.len()];
        try_call(libc::SYS_keyctl, &args)?;
        Ok("it describes a keyring".to_owned())
    };
    attempt("keyctl.user", in_child(|| describe(USER)));
    attempt("keyctl.session", in_child(|| describe(SESSION)));
    let wanted = c(args.get("token"));
    attempt(
        "request_key",
        in_child(
            || match try_call(libc::SYS_request_key, &[at(&kind), at(&wanted), 0, 0]) {
                Ok(serial) => Ok(format!("found key {serial}")),
                // ENOKEY: it looked, and there is none.
                Err(errno) if errno == libc::ENOKEY => Ok("the kernel looked for a key".to_owned()),
                Err(errno) => Err(errno.into()),
            },
        ),
    );
}
