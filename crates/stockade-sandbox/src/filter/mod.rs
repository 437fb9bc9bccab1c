//! The system call filter every process of a sandbox lives under, the Guest included.
//!
//! One classic BPF program: a foreign architecture (`int 0x80`) ends the process; the number
//! is looked up by halving, so that a call costs eight comparisons at most (and none where
//! the kernel remembers that a number is always let through, Linux 5.11); numbers of the
//! x32 ABI and of calls newer than the table do not exist.
#![allow(unsafe_code)]

mod bpf;
mod table;

use std::io;

use self::{
    bpf::{
        ARCHITECTURE, Instruction, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, NUMBER, Piece, any_of, argument, branch,
        load, masked, upper_half, verdict,
    },
    table::{Checked, GAP, HIGHEST, Rule},
};
use crate::failure::{Failure, Step};

/// AUDIT_ARCH_X86_64 of linux/audit.h; the x32 ABI has the same.
const X86_64: u32 = 0xc000_003e;
/// Most instructions the kernel takes (BPF_MAXINSNS).
const LONGEST: usize = 4096;

/// Flags of clone and unshare that would make a new namespace. New user namespaces
/// would give a process a full set of capabilities inside them.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// Only unshare knows it by flag; in clone the same bit belongs to the exit signal.
const CLONE_NEWTIME: i32 = 0x80;

/// The type of a socket without its flags.
const SOCKET_TYPE: u32 = 0xf;
/// The protocols of each type; 0 is the usual one. Others (SCTP, DCCP, MPTCP, SMC) are kernel
/// modules nobody here needs, and the boundary would drop what they send.
const STREAM_PROTOCOLS: [i32; 2] = [0, libc::IPPROTO_TCP];
const DATAGRAM_PROTOCOLS: [i32; 4] = [0, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
/// Attaches another protocol (TLS in the kernel and more) to a connection (tcp(7)).
const TCP_ULP: i32 = 31;
/// Type into somebody's terminal; copy from the console; load a line discipline.
const TERMINAL_REQUESTS: [u32; 3] = [0x5412, 0x541c, 0x5423];
/// Personalities programs really ask for: Linux, without address randomisation, and the query.
const PERSONALITIES: [u32; 3] = [0, 0x0004_0000, 0xffff_ffff];
/// The Guest's own limits are not the agent's to lower.
const GUEST: u32 = 1;

/// The limit on core dumps. A sandbox gets one byte: with that the kernel writes no core file and
/// starts no core_pattern program of the host's either, which it does where the limit is 0
/// (fs/coredump.c, "RLIMIT_CORE is set to 1"). Programs that want no dumps set 0 and stop when
/// they cannot; they are told that they have, and what they want is so.
const CORE: u32 = libc::RLIMIT_CORE;

/// The compiled filters, in the order they are to be installed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(Vec<Vec<Instruction>>);

/// Compiles the filters. Needs no privilege.
pub(crate) fn compile() -> Result<Filters, Failure> {
    let program = program();
    if program.len() > LONGEST {
        let why = format!("{} instructions, and the kernel takes {LONGEST}", program.len());
        return Err(Failure::new("compile the system call filter", why));
    }
    Ok(Filters(vec![program]))
}

/// Filters as plain numbers, for a Guest that installs them on itself: one for each
/// instruction, `code << 48 | jt << 40 | jf << 32 | k`.
pub(crate) fn words(filters: &Filters) -> Vec<Vec<u64>> {
    let programs = filters.0.iter();
    programs
        .map(|program| program.iter().map(|instruction| instruction.word()).collect())
        .collect()
}

/// Installs the filters for good. `no_new_privs` must be set already.
pub(crate) fn install(filters: &Filters) -> Result<(), Failure> {
    for program in &filters.0 {
        install_one(program).step("install the system call filter")?;
    }
    Ok(())
}

fn install_one(program: &[Instruction]) -> io::Result<()> {
    let unpack = |i: &Instruction| libc::sock_filter {
        code: i.code,
        jt: i.jt,
        jf: i.jf,
        k: i.k,
    };
    let filter: Vec<_> = program.iter().map(unpack).collect();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: pointer and length describe `filter`, which the kernel copies and never writes.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kernel-side defences of processes that a sandbox has on this kernel, for
/// [`stockade_ports::sandbox::SandboxFacts::defences`].
pub(crate) fn defences() -> Vec<String> {
    let landlock = landlock_version().map(|version| format!("landlock={version}"));
    ["seccomp".to_owned()].into_iter().chain(landlock).collect()
}

/// The version of Landlock this kernel has (kernel: userspace-api/landlock.rst). The Guest puts
/// it in force, and the measurement asks it whether it did.
fn landlock_version() -> Option<i64> {
    const ASK_VERSION: libc::c_ulong = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads nothing and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_VERSION) };
    (version > 0).then_some(version)
}

fn allow() -> Piece {
    verdict(libc::SECCOMP_RET_ALLOW)
}

fn fail(errno: i32) -> Piece {
    verdict(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

/// Says that it was done, and does nothing.
fn ignore() -> Piece {
    fail(0)
}

fn program() -> Piece {
    let ours = load(NUMBER, search(&runs()));
    let foreign = verdict(libc::SECCOMP_RET_KILL_PROCESS);
    load(ARCHITECTURE, branch(JUMP_EQUAL, X86_64, ours, foreign))
}

/// Ranges of numbers that are treated alike: the first number of each, and what is done.
/// The last range has no end, and with it the x32 ABI (numbers from 0x40000000) is covered.
fn runs() -> Vec<(u32, Option<Rule>)> {
    let rules = table::rules();
    let absent = Some(Rule::Refuse(libc::ENOSYS));
    let mut runs: Vec<(u32, Option<Rule>)> = Vec::new();
    for number in 0..=HIGHEST + 1 {
        let known = number <= HIGHEST && !GAP.contains(&number);
        let rule = if known { rules.get(&number).copied() } else { absent };
        if runs.last().is_none_or(|(_, last)| *last != rule) {
            runs.push((number, rule));
        }
    }
    runs
}

/// Finds the range of the loaded number by halving.
fn search(runs: &[(u32, Option<Rule>)]) -> Piece {
    match runs {
        [] => fail(libc::ENOSYS),
        [(_, rule)] => treat(*rule),
        _ => {
            let (below, above) = runs.split_at(runs.len() / 2);
            branch(JUMP_AT_LEAST, above[0].0, search(above), search(below))
        }
    }
}

fn treat(rule: Option<Rule>) -> Piece {
    match rule {
        None => allow(),
        Some(Rule::Refuse(errno)) => fail(errno),
        Some(Rule::Look(checked)) => look(checked),
    }
}

fn look(checked: Checked) -> Piece {
    let bits = i32::cast_unsigned;
    let has_any = |flags: i32| {
        let test = branch(JUMP_ANY_BIT, bits(flags), fail(libc::EPERM), allow());
        load(argument(0), test)
    };
    match checked {
        Checked::Clone => has_any(NAMESPACES),
        Checked::Unshare => has_any(NAMESPACES | CLONE_NEWTIME),
        Checked::Socket => load(argument(0), socket()),
        Checked::SocketPair => {
            let only_unix = branch(JUMP_EQUAL, bits(libc::AF_UNIX), allow(), fail(libc::EAFNOSUPPORT));
            load(argument(0), only_unix)
        }
        Checked::SetSocketOption => {
            let ulp = branch(JUMP_EQUAL, bits(TCP_ULP), fail(libc::ENOPROTOOPT), allow());
            let of_tcp = load(argument(2), ulp);
            load(
                argument(1),
                branch(JUMP_EQUAL, bits(libc::IPPROTO_TCP), of_tcp, allow()),
            )
        }
        Checked::Ioctl => load(argument(1), any_of(&TERMINAL_REQUESTS, &fail(libc::EPERM), allow())),
        Checked::Personality => load(argument(0), any_of(&PERSONALITIES, &allow(), fail(libc::EPERM))),
        Checked::ProcessLimit => {
            // Asking is fine: then there is no new limit, which is a pointer of two halves.
            let set = |place, none| load(place, branch(JUMP_EQUAL, 0, none, ignore()));
            let set = set(argument(2), set(upper_half(2), allow()));
            let of_core = branch(JUMP_EQUAL, CORE, set, allow());
            let of_guest = branch(JUMP_EQUAL, GUEST, fail(libc::EPERM), load(argument(1), of_core));
            load(argument(0), of_guest)
        }
        Checked::OwnLimit => load(argument(0), branch(JUMP_EQUAL, CORE, ignore(), allow())),
    }
}

/// Families, types and protocols a program may use. Everything else (packet, vsock, alg …)
/// leaves the network namespace or is kernel surface nobody here needs. The error numbers
/// are those of a kernel without it, which programs know how to take.
fn socket() -> Piece {
    let numbers = |all: &[i32]| all.iter().copied().map(i32::cast_unsigned).collect::<Vec<_>>();
    let protocols = |all: &[i32]| {
        let check = any_of(&numbers(all), &allow(), fail(libc::EPROTONOSUPPORT));
        load(argument(2), check)
    };
    let is = |value: i32, yes, no| branch(JUMP_EQUAL, value.cast_unsigned(), yes, no);
    let raw = is(libc::SOCK_RAW, fail(libc::EPERM), fail(libc::ESOCKTNOSUPPORT));
    let datagram = is(libc::SOCK_DGRAM, protocols(&DATAGRAM_PROTOCOLS), raw);
    let stream = is(libc::SOCK_STREAM, protocols(&STREAM_PROTOCOLS), datagram);
    let internet = load(argument(1), masked(SOCKET_TYPE, stream));
    let families = is(
        libc::AF_NETLINK,
        protocols(&[libc::NETLINK_ROUTE]),
        fail(libc::EAFNOSUPPORT),
    );
    let families = any_of(&numbers(&[libc::AF_INET, libc::AF_INET6]), &internet, families);
    is(libc::AF_UNIX, allow(), families)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
