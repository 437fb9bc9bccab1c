//! Places of a root file system: read-only parts, parts of `/proc` and `/sys`, sockets.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::Path,
};

use crate::{
    args::Args,
    sys::{at, c, try_call},
    tell::{Outcome, any, attempt, refused},
};

const PROBE: &str = ".stockade-redteam-probe";

fn create(dir: &str) -> Outcome {
    let path = Path::new(dir).join(PROBE);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    let _ = fs::remove_file(&path);
    Ok(format!("made a file in {dir}"))
}

/// Opens for writing and writes nothing.
fn open_for_writing(path: &str) -> Outcome {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    Ok(format!("opened {path} for writing"))
}

/// Changes what is not the agent's: makes files in `dir=`, opens `file=` for writing, changes
/// its mode and its extended attributes to what they are; touches what was `planted=`.
pub(crate) fn tamper(args: &Args) {
    any("create", args.all("dir").map(create));
    any("open", args.all("file").map(open_for_writing));
    any(
        "chmod",
        args.all("file").map(|path| {
            let permissions = fs::metadata(path)?.permissions();
            fs::set_permissions(path, permissions)?;
            Ok(format!("set the mode of {path}"))
        }),
    );
    any(
        "times",
        args.all("planted").map(|path| {
            // No times: now. Needs write access, not ownership.
            let here = libc::AT_FDCWD as isize as usize;
            try_call(libc::SYS_utimensat, &[here, at(&c(path)), 0, 0])?;
            Ok(format!("set the times of {path}"))
        }),
    );
    any(
        "xattr",
        args.all("file").map(|path| {
            let (path, name) = (c(path), c("user.stockade"));
            try_call(libc::SYS_setxattr, &[at(&path), at(&name), at(&name), 1, 0])?;
            let _ = try_call(libc::SYS_removexattr, &[at(&path), at(&name)]);
            Ok("set an extended attribute".to_owned())
        }),
    );
}

/// Leaves a file called `token=` in every `dir=`; the red team looks for it outside.
pub(crate) fn drop_files(args: &Args) {
    for dir in args.all("dir") {
        let path = Path::new(dir).join(args.get("token"));
        let told = match fs::write(&path, "dropped") {
            Ok(()) => format!("wrote {}", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        attempt(&format!("drop:{dir}"), refused(told));
    }
}

/// Files that programs outside run or obey by themselves.
const TRAPS: [&str; 8] = [
    ".claude/settings.json",
    ".git/hooks/pre-commit",
    ".git/config.worktree",
    ".mcp.json",
    ".bashrc",
    ".vscode/tasks.json",
    ".envrc",
    ".github/workflows/x.yml",
];

/// Makes files that programs outside run or obey, in every `dir=` that is there.
pub(crate) fn traps(args: &Args) {
    for trap in TRAPS {
        any(
            trap,
            args.all("dir").map(|dir| -> Outcome {
                let path = Path::new(dir).join(trap);
                fs::metadata(dir)?;
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                File::create_new(&path)?.write_all(b"#!/bin/sh\n")?;
                Ok(format!("made {}", path.display()))
            }),
        );
    }
}

/// Files that tell about the host or act on it; each needs another way to be closed.
const MASKED: &[(&str, &[&str])] = &[
    ("kcore", &["/proc/kcore"]),
    ("keys", &["/proc/keys", "/proc/key-users"]),
    ("kallsyms", &["/proc/kallsyms"]),
    ("kmsg", &["/proc/kmsg", "/dev/kmsg"]),
    (
        "timers",
        &["/proc/timer_list", "/proc/timer_stats", "/proc/latency_stats"],
    ),
    ("sched", &["/proc/sched_debug", "/sys/kernel/debug/sched/debug"]),
    (
        "vmalloc",
        &["/proc/vmallocinfo", "/proc/kpagecount", "/proc/kpageflags"],
    ),
    (
        "firmware",
        &[
            "/sys/firmware/acpi/tables/DSDT",
            "/sys/firmware/dmi/tables/DMI",
            "/proc/acpi/wakeup",
        ],
    ),
    ("powercap", &["/sys/class/powercap/intel-rapl:0/energy_uj"]),
    ("scsi", &["/proc/scsi/scsi", "/proc/asound/cards"]),
    ("kernel-command-line", &["/proc/cmdline"]),
    ("modules", &["/sys/module/kernel/parameters/panic", "/sys/kernel/notes"]),
    (
        "block",
        &[
            "/sys/block/vda/size",
            "/sys/block/sda/size",
            "/sys/block/loop0/size",
            "/sys/block/nvme0n1/size",
        ],
    ),
    (
        "security",
        &["/sys/kernel/security/lsm", "/sys/kernel/tracing/available_events"],
    ),
];

fn leaks(path: &str, host_line: &str) -> Outcome {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if path.ends_with("kmsg") {
        // Reading would take messages away from whoever reads the log. What masks a file is the
        // null device, 1:3.
        return match file.metadata()?.rdev() {
            0x103 => refused("it is the null device"),
            _ => Ok(format!("opened {path}")),
        };
    }
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text)?;
    // A kernel of the sandbox's own has a command line of its own.
    if path == "/proc/cmdline" && text.trim_ascii() != host_line.trim().as_bytes() {
        return refused("it is not the host's");
    }
    match text.iter().any(|byte| !byte.is_ascii_whitespace() && *byte != 0) {
        // Addresses of nothing: the kernel itself hides them.
        true if path.ends_with("kallsyms") && text.starts_with(b"0000000000000000") => refused("addresses are hidden"),
        true => Ok(format!("{path} tells {} bytes", text.len())),
        false => refused("it is empty"),
    }
}

/// Reads what container runtimes mask. `line=` is the host's kernel command line.
pub(crate) fn masked(args: &Args) {
    for (name, paths) in MASKED {
        any(
            &format!("read.{name}"),
            paths.iter().map(|path| leaks(path, args.get("line"))),
        );
    }
}

/// Switches of the kernel that run a program or stop the machine. Opened, never written.
const SWITCHES: &[(&str, &[&str])] = &[
    ("core_pattern", &["/proc/sys/kernel/core_pattern"]),
    ("modprobe", &["/proc/sys/kernel/modprobe"]),
    ("hotplug", &["/proc/sys/kernel/hotplug", "/sys/kernel/uevent_helper"]),
    (
        "binfmt_misc",
        &["/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status"],
    ),
    ("sysrq", &["/proc/sysrq-trigger", "/proc/sys/kernel/sysrq"]),
    ("panic", &["/proc/sys/kernel/panic", "/proc/sys/vm/panic_on_oom"]),
    ("randomize", &["/proc/sys/kernel/randomize_va_space"]),
    (
        "forwarding",
        &[
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv4/conf/all/route_localnet",
        ],
    ),
    (
        "uevent",
        &["/sys/class/mem/null/uevent", "/sys/devices/virtual/mem/null/uevent"],
    ),
    ("oom_score", &["/proc/1/oom_score_adj"]),
    ("maps", &["/proc/1/uid_map", "/proc/1/setgroups"]),
];

/// Opens the kernel's switches for writing.
pub(crate) fn sysctls(_: &Args) {
    for (name, paths) in SWITCHES {
        any(&format!("open.{name}"), paths.iter().map(|path| open_for_writing(path)));
    }
}

/// Sockets of those who could start something outside.
const RUNTIMES: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/systemd/notify",
    "/run/systemd/journal/socket",
    "/run/user/0/bus",
    "/run/user/1000/bus",
    "/run/user/1000/gnupg/S.gpg-agent",
    "/run/nscd/socket",
    "/run/snapd.socket",
    "/tmp/.X11-unix/X0",
];

/// Connects to unix sockets by path: well-known ones and the planted `path=`.
pub(crate) fn sockets(args: &Args) {
    let connect = |path: &str| -> Outcome {
        UnixStream::connect(path)?;
        Ok(format!("connected to {path}"))
    };
    any("runtime", RUNTIMES.iter().map(|path| connect(path)));
    any("planted", args.all("path").map(connect));
    let through = args
        .all("path")
        .flat_map(|path| [format!("/proc/1/root{path}"), format!("/proc/self/root{path}")]);
    any("planted-proc", through.map(|path| connect(&path)));
}
