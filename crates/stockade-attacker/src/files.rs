//! Reaching a host file: by its path, through links, through `/proc`, through descriptors.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{OpenOptionsExt as _, symlink},
    },
    path::Path,
};

use crate::{
    args::Args,
    sys::{at, c, contains, pids, try_call},
    tell::{Outcome, any, refused},
};

const UP: &str = "../../../../../../../../..";

/// Ways to spell a path of the host, each with a name.
fn ways(path: &str) -> Vec<(&'static str, Vec<String>)> {
    let link = format!("link-{}", path.replace('/', "_"));
    let _ = fs::remove_file(&link);
    let _ = symlink(path, &link);
    let relative = format!("rel-{}", path.replace('/', "_"));
    let _ = fs::remove_file(&relative);
    let _ = symlink(format!("{UP}{path}"), &relative);
    let through = |part: &str| {
        pids()
            .into_iter()
            .map(|pid| format!("/proc/{pid}/{part}{path}"))
            .collect()
    };
    vec![
        ("path", vec![path.to_owned(), format!("{UP}{path}")]),
        ("symlink", vec![link, relative]),
        ("proc-root", through("root")),
        ("proc-cwd", through(&format!("cwd/{UP}"))),
        (
            "proc-fd",
            through(&format!("fd/0/{UP}"))
                .into_iter()
                .chain(through(&format!("fd/3/{UP}")))
                .collect(),
        ),
        (
            "proc-self",
            vec![
                format!("/proc/self/root{path}"),
                format!("/proc/thread-self/root{path}"),
            ],
        ),
    ]
}

/// Makes an attempt on every path in every way; one line for each way.
fn everywhere(args: &Args, verb: &str, one: impl Fn(&str) -> Outcome) {
    let paths: Vec<_> = args.all("path").map(ways).collect();
    let Some(first) = paths.first() else { return };
    for (at, (way, _)) in first.iter().enumerate() {
        let spellings = paths.iter().flat_map(|ways| &ways[at].1);
        any(&format!("{way}.{verb}"), spellings.map(|path| one(path)));
    }
}

/// Reads planted files and looks for `token=`.
pub(crate) fn read(args: &Args) {
    everywhere(args, "read", |path| {
        let mut bytes = Vec::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        file.take(1 << 20).read_to_end(&mut bytes)?;
        if contains(&bytes, args.get("token").as_bytes()) {
            Ok(format!("read the canary through {path}"))
        } else {
            refused("there is a file of that name, and it is not the canary")
        }
    });
}

/// Appends to planted files.
pub(crate) fn write(args: &Args) {
    everywhere(args, "write", append);
}

fn append(path: &str) -> Outcome {
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?
        .write_all(b"attacked\n")?;
    Ok(format!("wrote to {path}"))
}

/// Links planted files into the working directory and writes through the link.
pub(crate) fn hardlink(args: &Args) {
    let link = |target: &str, make: &dyn Fn() -> io::Result<()>| -> Outcome {
        let _ = fs::remove_file("hard");
        make()?;
        let wrote = append("hard");
        let _ = fs::remove_file("hard");
        wrote.map(|_| format!("wrote to {target} through a hard link"))
    };
    any(
        "link.write",
        args.all("path").map(|path| link(path, &|| fs::hard_link(path, "hard"))),
    );
    any(
        "linkat-descriptor.write",
        args.all("path").map(|path| {
            let file = File::open(path)?;
            let from = c(&format!("/proc/self/fd/{}", file.as_raw_fd()));
            let to = c("hard");
            let here = libc::AT_FDCWD as isize as usize;
            let call = || {
                let args = [here, at(&from), here, at(&to), libc::AT_SYMLINK_FOLLOW as usize];
                try_call(libc::SYS_linkat, &args)
                    .map(drop)
                    .map_err(io::Error::from_raw_os_error)
            };
            link(path, &call)
        }),
    );
}

/// Opens planted files for reading and asks `/proc` for more rights on the same descriptor.
pub(crate) fn reopen(args: &Args) {
    for (name, proc) in [
        ("self", "/proc/self/fd"),
        ("thread-self", "/proc/thread-self/fd"),
        ("dev", "/dev/fd"),
    ] {
        any(
            &format!("{name}.reopen"),
            args.all("path").map(|path| {
                let file = File::open(path)?;
                append(&format!("{proc}/{}", file.as_raw_fd()))
            }),
        );
    }
    let outcome = args.all("path").map(|path| -> Outcome {
        let parent = File::open(Path::new(path).parent().unwrap_or(Path::new("/")))?;
        let name = c(Path::new(path)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("."));
        let flags = (libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK) as usize;
        let fd = try_call(libc::SYS_openat, &[parent.as_raw_fd() as usize, at(&name), flags])?;
        drop(crate::sys::owned(fd));
        Ok(format!("opened {path} for writing below its directory"))
    });
    any("openat.reopen", outcome);
}
