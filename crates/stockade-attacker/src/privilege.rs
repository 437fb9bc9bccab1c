//! Rights this process has and could get.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    args::Args,
    sys::{at, c, in_child, try_call},
    tell::{Outcome, any, attempt, refused},
};

/// A line of this process's status file.
fn status(key: &str) -> Result<String, crate::tell::Refusal> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(line.unwrap_or_default().trim().to_owned())
}

/// Looks at the capability sets, `no_new_privs`, the filter and the ids.
pub(crate) fn sets(_: &Args) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let full = status(set).and_then(|hex| match u64::from_str_radix(&hex, 16) {
            Ok(0) => refused("empty"),
            Ok(_) => Ok(format!("{set} is {hex}")),
            Err(_) => refused(format!("{set} cannot be read: '{hex}'")),
        });
        attempt(&format!("set.{set}"), full);
    }
    let off = |key: &str, fine: &str| {
        status(key).and_then(|value| {
            if value == fine {
                refused(format!("{key} is {value}"))
            } else {
                Ok(format!("{key} is '{value}'"))
            }
        })
    };
    let no_new = try_call(libc::SYS_prctl, &[libc::PR_GET_NO_NEW_PRIVS as usize]);
    attempt(
        "no_new_privs.off",
        if no_new == Ok(1) {
            refused("no_new_privs is on")
        } else {
            Ok(format!("no_new_privs: {no_new:?}"))
        },
    );
    attempt("filter.off", off("Seccomp", "2"));
    let ids = status("Uid").and_then(|ids| {
        if ids.split_whitespace().any(|id| id == "0") {
            Ok(format!("the superuser: {ids}"))
        } else {
            refused(ids)
        }
    });
    attempt("superuser", ids);
    let core = status("Groups").and_then(|groups| {
        if groups.split_whitespace().any(|group| group == "0") {
            Ok(format!("in the superuser's group: {groups}"))
        } else {
            refused(format!("groups: {groups}"))
        }
    });
    attempt("superuser-group", core);
}

/// Asks for more.
pub(crate) fn raise(args: &Args) {
    let each = |name: &str, number: i64, args: &[usize]| {
        attempt(name, in_child(|| crate::sys::attempt(number, args)));
    };
    each("setuid", libc::SYS_setuid, &[0]);
    each("setgid", libc::SYS_setgid, &[0]);
    each("setresuid", libc::SYS_setresuid, &[0, 0, 0]);
    // Drops what a capability could have, which needs one: proof of having it.
    each("drop-bounding", libc::SYS_prctl, &[libc::PR_CAPBSET_DROP as usize, 0]);
    let ambient = [
        libc::PR_CAP_AMBIENT as usize,
        libc::PR_CAP_AMBIENT_RAISE as usize,
        0,
        0,
        0,
    ];
    attempt(
        "raise-ambient",
        in_child(|| {
            // What is to be ambient has to be inheritable first.
            capset(1, 1)?;
            crate::sys::attempt(libc::SYS_prctl, &ambient)
        }),
    );
    attempt(
        "capset",
        in_child(|| {
            // CAP_SYS_ADMIN, by its number in linux/capability.h.
            capset(1 << 21, 0)?;
            Ok("set its own capabilities".to_owned())
        }),
    );
    each(
        "keep-capabilities-locked",
        libc::SYS_prctl,
        &[libc::PR_SET_SECUREBITS as usize, 0],
    );
    each("chroot", libc::SYS_chroot, &[c".".as_ptr() as usize]);
    if !args.own_kernel() {
        each("nice", libc::SYS_setpriority, &[0, 0, crate::sys::minus(20)]);
        // struct sched_param: the lowest real-time priority, which comes before everything else.
        let priority = 1_i32;
        for (name, policy) in [("sched-fifo", libc::SCHED_FIFO), ("sched-rr", libc::SCHED_RR)] {
            let args = [0, policy as usize, (&raw const priority) as usize];
            each(name, libc::SYS_sched_setscheduler, &args);
        }
        // IOPRIO_WHO_PROCESS, and class IOPRIO_CLASS_RT (ioprio_set(2)).
        each("ioprio-realtime", libc::SYS_ioprio_set, &[1, 0, 1 << 13]);
    }
}

fn capset(effective: u32, inheritable: u32) -> Result<usize, i32> {
    // struct __user_cap_header_struct and _data_struct, version 3 (capset(2)).
    let header = [0x2008_0522_u32, 0];
    let data = [effective, effective, inheritable, 0, 0, 0];
    try_call(libc::SYS_capset, &[header.as_ptr() as usize, data.as_ptr() as usize])
}

/// Starts programs that belong to root and carry the set-user-ID bit or file capabilities.
pub(crate) fn setuid(args: &Args) {
    any("setuid", args.all("path").map(run));
    any("file-capabilities", args.all("capable").map(run));
}

fn run(path: &str) -> Outcome {
    let output = Command::new(path).arg("whoami").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("got superuser") || text.contains("got capabilities") {
        Ok(format!("{path} ran with rights"))
    } else if text.contains("plain user") {
        refused("it ran as the plain user")
    } else {
        refused(format!("it did not run: {}", output.status))
    }
}

/// Gives `path=` file capabilities, as a careless image does (capabilities(7)): CAP_CHOWN,
/// CAP_DAC_OVERRIDE and CAP_SETUID, which are in almost every bounding set, also in a container's.
pub(crate) fn make_capable(args: &Args) {
    let path = c(args.get("path"));
    // struct vfs_cap_data, revision 2, effective: permitted and inheritable, twice 32 bits.
    let data = [0x0200_0001_u32, 0x83, 0, 0, 0];
    let name = c("security.capability");
    let outcome = crate::sys::attempt(
        libc::SYS_setxattr,
        &[at(&path), at(&name), data.as_ptr() as usize, size_of_val(&data), 0],
    );
    attempt("capable", outcome);
}

/// Makes set-user-ID programs of the attacker itself, with file capabilities where that is allowed,
/// in every `dir=`, and starts them.
pub(crate) fn make_setuid(args: &Args) {
    any(
        "own-setuid",
        args.all("dir").map(|dir| -> Outcome {
            let path = format!("{dir}/own-setuid");
            let _ = fs::remove_file(&path);
            fs::copy("/proc/self/exe", &path)?;
            let made = try_call(libc::SYS_chown, &[at(&c(&path)), 0, 0]);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6755))?;
            let ran = run(&path);
            let _ = fs::remove_file(&path);
            match (made, ran) {
                (Ok(_), Ok(_)) => Ok(format!("{path} belongs to root, and ran with rights")),
                (_, Ok(what)) => Ok(what),
                (_, Err(refusal)) => Err(refusal),
            }
        }),
    );
}

/// Says who this is, for [`setuid`] in another process.
pub(crate) fn whoami(_: &Args) {
    let superuser = try_call(libc::SYS_geteuid, &[]) == Ok(0);
    let capable = status("CapEff").is_ok_and(|hex| u64::from_str_radix(&hex, 16).is_ok_and(|set| set != 0));
    let word = match (superuser, capable) {
        (true, _) => "got superuser",
        (false, true) => "got capabilities",
        (false, false) => "plain user",
    };
    attempt("whoami", refused(word));
}
