//! Giving up every privilege, for good, where nobody did it before the Guest was started.
#![allow(unsafe_code)]

use std::io;

use stockade_guest_proto::{FailureKind, FromGuest};

use crate::{conn::Conn, sys};

/// More than there are capabilities (capabilities(7)); the kernel says where they end.
const CAPABILITIES: libc::c_ulong = 64;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const JOIN_SESSION_KEYRING: libc::c_long = 1;
/// Most instructions of one program (BPF_MAXINSNS).
const LONGEST: usize = 4096;

/// Confines the Guest, and with it everything it starts from now on, and answers.
pub(crate) fn run(id: u32, filters: &[Vec<u64>], conn: &mut Conn) {
    match confine(filters) {
        Ok(()) => conn.send(&FromGuest::Done { id }),
        Err((step, e)) => conn.fail(id, FailureKind::Other, format!("{step}: {e}")),
    }
}

fn confine(filters: &[Vec<u64>]) -> Result<(), (&'static str, io::Error)> {
    let programs: Option<Vec<_>> = filters.iter().map(|filter| program(filter)).collect();
    let programs = programs.ok_or_else(|| {
        let cause = io::Error::from_raw_os_error(libc::EINVAL);
        ("read the system call filters", cause)
    })?;
    // What the caller's session holds is not for the agent. Kernels without keyrings have none.
    // SAFETY: a null name makes an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    drop_capabilities().map_err(|e| ("drop all capabilities", e))?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(|e| ("set no_new_privs", e))?;
    sys::set_non_dumpable().map_err(|e| ("close the Guest to inspection", e))?;
    for program in &programs {
        install(program).map_err(|e| ("install a system call filter", e))?;
    }
    Ok(())
}

fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    // SAFETY: only called with options that take integers.
    match unsafe { libc::prctl(option, a, b, 0, 0) } {
        result if result < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Empties every set. A Guest that was started without privileges may not touch the bounding
/// set, and has nothing it could bound; the measurement sees what is left.
fn drop_capabilities() -> io::Result<()> {
    let tolerated = |result: io::Result<()>| match result {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => Err(e),
        _ => Ok(()),
    };
    let clear_all = libc::c_ulong::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL).unwrap_or(4);
    tolerated(prctl(libc::PR_CAP_AMBIENT, clear_all, 0))?;
    for capability in 0..CAPABILITIES {
        tolerated(prctl(libc::PR_CAPBSET_DROP, capability, 0))?;
    }
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: the layouts of capset(2): a header of two words, two records of three words.
    match unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unpacks a program; `None` when it cannot be one.
fn program(words: &[u64]) -> Option<Vec<libc::sock_filter>> {
    let unpack = |word: &u64| {
        let [c1, c0, jt, jf, k3, k2, k1, k0] = word.to_be_bytes();
        libc::sock_filter {
            code: u16::from_be_bytes([c1, c0]),
            jt,
            jf,
            k: u32::from_be_bytes([k3, k2, k1, k0]),
        }
    };
    let fits = !words.is_empty() && words.len() <= LONGEST;
    fits.then(|| words.iter().map(unpack).collect())
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: pointer and length describe the program, which the kernel copies and never writes.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_unpacked_field_by_field() {
        let one = program(&[0x0015_0203_c000_003e]).expect("a program");
        assert_eq!((one[0].code, one[0].jt, one[0].jf, one[0].k), (0x15, 2, 3, 0xc000_003e));
        assert!(program(&[]).is_none() && program(&[0; LONGEST + 1]).is_none());
    }
}
