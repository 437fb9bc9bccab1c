//! Device nodes: those that are there, and those one could make.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _};

use crate::{
    args::Args,
    sys::{at, c, try_call},
    tell::{Outcome, any, attempt},
};

/// Opening one of these does nothing by itself. (A watchdog is not among them: opening it starts
/// the clock.)
const DEVICES: &[(&str, &[&str])] = &[
    ("kvm", &["/dev/kvm"]),
    ("fuse", &["/dev/fuse", "/dev/cuse"]),
    ("tun", &["/dev/net/tun"]),
    ("vhost", &["/dev/vhost-vsock", "/dev/vhost-net", "/dev/vsock"]),
    ("memory", &["/dev/mem", "/dev/port", "/dev/kmem"]),
    ("kernel-log", &["/dev/kmsg"]),
    ("loop", &["/dev/loop-control", "/dev/loop0"]),
    (
        "block",
        &[
            "/dev/vda",
            "/dev/sda",
            "/dev/nvme0n1",
            "/dev/xvda",
            "/dev/dm-0",
            "/dev/mapper/control",
        ],
    ),
    ("btrfs", &["/dev/btrfs-control"]),
    ("userfaultfd", &["/dev/userfaultfd"]),
    ("console", &["/dev/console", "/dev/tty0", "/dev/tty1", "/dev/vcs"]),
    ("random-seed", &["/dev/hwrng", "/dev/cpu/0/msr", "/dev/cpu_dma_latency"]),
    (
        "graphics",
        &["/dev/dri/card0", "/dev/dri/renderD128", "/dev/fb0", "/dev/input/event0"],
    ),
];

fn open_one(path: &str) -> Outcome {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let both = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    if both.is_err() {
        OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    }
    Ok(format!("opened {path}"))
}

/// Opens devices nobody inside needs. With `allowed=` opens those instead, for the twin.
pub(crate) fn open(args: &Args) {
    let mut twin = false;
    for path in args.all("allowed") {
        twin = true;
        attempt(path, open_one(path));
    }
    if twin {
        return;
    }
    for (name, paths) in DEVICES {
        if args.own_kernel() && *name == "fuse" {
            continue;
        }
        any(&format!("open.{name}"), paths.iter().map(|path| open_one(path)));
    }
}

/// Makes device nodes in `dir=`: the kernel's memory, a disk, and the null device.
pub(crate) fn make(args: &Args) {
    let here = libc::AT_FDCWD as isize as usize;
    let nodes: [(&str, u32, usize); 3] = [
        ("memory", libc::S_IFCHR, 0x101),
        ("disk", libc::S_IFBLK, 0x700),
        ("null", libc::S_IFCHR, 0x103),
    ];
    for (name, kind, device) in nodes {
        let outcome = args.all("dir").map(|dir| -> Outcome {
            let path = c(&format!("{dir}/node"));
            try_call(libc::SYS_mknodat, &[here, at(&path), (kind | 0o600) as usize, device])?;
            let opened = OpenOptions::new().read(true).open(format!("{dir}/node"));
            let _ = try_call(libc::SYS_unlinkat, &[here, at(&path), 0]);
            Ok(format!("made it in {dir}; opening it: {}", opened.is_ok()))
        });
        any(&format!("mknod.{name}"), outcome);
    }
}
