//! Mounts and roots.

use std::fs;

use crate::{
    args::Args,
    sys::{at, attempt as call, c, in_child, try_call},
    tell::{Outcome, attempt},
};

const AT_RECURSIVE: usize = 0x8000;
const SYS_MOUNT_SETATTR: i64 = 442;

/// In a mount namespace of its own where it can make one, so that nothing is mounted for others.
/// Where it cannot, the call is tried as it is, and undone.
fn apart(body: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        if try_call(libc::SYS_unshare, &[libc::CLONE_NEWNS as usize]).is_ok() {
            let (none, root) = (c("none"), c("/"));
            let private = (libc::MS_REC | libc::MS_PRIVATE) as usize;
            let _ = try_call(libc::SYS_mount, &[at(&none), at(&root), 0, private, 0]);
        }
        let outcome = body();
        let point = c("mnt");
        let _ = try_call(libc::SYS_umount2, &[at(&point), libc::MNT_DETACH as usize]);
        outcome
    })
}

fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Outcome {
    let [source, target, kind, data] = [source, target, kind, data].map(c);
    let flags = usize::try_from(flags).unwrap_or(0);
    call(
        libc::SYS_mount,
        &[at(&source), at(&target), at(&kind), flags, at(&data)],
    )
}

/// Mounts file systems and host directories, old way and new way, and changes the root.
pub(crate) fn mounts(_: &Args) {
    let _ = fs::create_dir_all("mnt");
    for dir in ["upper", "work"] {
        let _ = fs::create_dir_all(dir);
    }
    let plain: [(&str, &str, &str, u64, &str); 7] = [
        ("tmpfs", "none", "tmpfs", 0, ""),
        ("bind", "/", "", libc::MS_BIND | libc::MS_REC, ""),
        ("proc", "none", "proc", 0, ""),
        ("sysfs", "none", "sysfs", 0, ""),
        (
            "overlay",
            "none",
            "overlay",
            0,
            "lowerdir=/proc/self,upperdir=upper,workdir=work,userxattr",
        ),
        ("cgroup2", "none", "cgroup2", 0, ""),
        ("devpts", "none", "devpts", 0, "newinstance"),
    ];
    for (name, source, kind, flags, data) in plain {
        let data = data.replace("/proc/self", "mnt");
        attempt(
            &format!("mount.{name}"),
            apart(|| mount(source, "mnt", kind, flags, &data)),
        );
    }
    attempt(
        "mount.fuse",
        apart(|| {
            let device = c("/dev/fuse");
            let here = libc::AT_FDCWD as isize as usize;
            let fd = try_call(libc::SYS_openat, &[here, at(&device), libc::O_RDWR as usize])?;
            mount(
                "none",
                "mnt",
                "fuse",
                0,
                &format!("fd={fd},rootmode=40000,user_id=0,group_id=0"),
            )
        }),
    );
    attempt("mount.via-user-namespace", via_user_namespace());
    new_api();
    attempt("pivot_root", apart(pivot));
    attempt(
        "chroot",
        in_child(|| {
            let here = c("mnt");
            call(libc::SYS_chroot, &[at(&here)])
        }),
    );
}

/// What an unprivileged user does: become root of a user namespace first.
fn via_user_namespace() -> Outcome {
    in_child(|| {
        let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as usize;
        try_call(libc::SYS_unshare, &[flags])?;
        mount("none", "mnt", "tmpfs", 0, "")
    })
}

fn pivot() -> Outcome {
    mount("none", "mnt", "tmpfs", 0, "")?;
    let [root, point] = ["/", "mnt"].map(c);
    try_call(libc::SYS_chdir, &[at(&point)])?;
    let here = c(".");
    let outcome = call(libc::SYS_pivot_root, &[at(&here), at(&here)]);
    let _ = try_call(libc::SYS_chdir, &[at(&root)]);
    outcome
}

fn new_api() {
    let here = libc::AT_FDCWD as isize as usize;
    let with_fd = |outcome: Result<usize, i32>| -> Outcome {
        drop(crate::sys::owned(outcome?));
        Ok("it has the descriptor of a file system".to_owned())
    };
    let (tmpfs, root) = (c("tmpfs"), c("/"));
    attempt(
        "fsopen",
        apart(|| with_fd(try_call(libc::SYS_fsopen, &[at(&tmpfs), 0]))),
    );
    attempt(
        "fspick",
        apart(|| with_fd(try_call(libc::SYS_fspick, &[here, at(&root), 0]))),
    );
    let clone = 1 | AT_RECURSIVE;
    attempt(
        "open_tree",
        apart(|| with_fd(try_call(libc::SYS_open_tree, &[here, at(&root), clone]))),
    );
    attempt(
        "mount_setattr",
        apart(|| {
            // struct mount_attr: clear "no set-user-ID" below here; needs the right to mount.
            let attributes = [0_u64, 2, 0, 0];
            let place = attributes.as_ptr() as usize;
            call(
                SYS_MOUNT_SETATTR,
                &[here, at(&root), 0, place, size_of_val(&attributes)],
            )
        }),
    );
    attempt(
        "move_mount",
        apart(|| {
            mount("none", "mnt", "tmpfs", 0, "")?;
            let point = c("mnt");
            let _ = fs::create_dir_all("upper");
            let to = c("upper");
            call(libc::SYS_move_mount, &[here, at(&point), here, at(&to), 0])
        }),
    );
    attempt(
        "umount",
        apart(|| {
            mount("none", "mnt", "tmpfs", 0, "")?;
            let point = c("mnt");
            call(libc::SYS_umount2, &[at(&point), 0])
        }),
    );
    attempt(
        "remount",
        apart(|| {
            mount("none", "mnt", "tmpfs", libc::MS_RDONLY, "")?;
            mount("none", "mnt", "", libc::MS_REMOUNT | libc::MS_BIND, "")
        }),
    );
}
