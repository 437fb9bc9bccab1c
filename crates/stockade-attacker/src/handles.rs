//! Opening files by handle, past every path (the "shocker" way out of early containers).

use std::{fs::File, os::fd::AsRawFd as _};

use crate::{
    args::Args,
    sys::{at, c, in_child, owned, slurp, try_call},
    tell::{Outcome, any, refused},
};

/// `struct file_handle` with room for the largest one.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

impl Handle {
    fn of(path: &str) -> Result<Self, i32> {
        let mut this = Self {
            bytes: 128,
            kind: 0,
            handle: [0; 128],
        };
        let mut mount = 0_i32;
        let path = c(path);
        let here = libc::AT_FDCWD as isize as usize;
        let place = (&raw mut this) as usize;
        try_call(
            libc::SYS_name_to_handle_at,
            &[here, at(&path), place, &raw mut mount as usize, 0],
        )?;
        Ok(this)
    }

    /// The root directory as ext4 (inode 2), XFS (64, 128) and others number it, generation 0.
    fn root(inode: u32) -> Self {
        let mut handle = [0; 128];
        handle[..4].copy_from_slice(&inode.to_le_bytes());
        Self {
            bytes: 8,
            kind: 1,
            handle,
        }
    }

    fn open(&self, mount: &str) -> Outcome {
        let mount = File::open(mount)?;
        let fd = usize::try_from(mount.as_raw_fd()).unwrap_or(usize::MAX);
        let place = (&raw const *self) as usize;
        let opened = owned(try_call(
            libc::SYS_open_by_handle_at,
            &[fd, place, libc::O_RDONLY as usize],
        )?);
        Ok(format!("/proc/self/fd/{}", {
            let number = opened.as_raw_fd();
            // Kept for whoever reads through it; the child ends soon.
            std::mem::forget(opened);
            number
        }))
    }
}

/// Opens the planted files' handles where they have one, and guesses the root's on every mount
/// that comes from the host.
pub(crate) fn shocker(args: &Args) {
    let mounts = || args.all("mount");
    any(
        "open_by_handle.own",
        args.all("path")
            .flat_map(|path| mounts().map(move |mount| in_child(|| Handle::of(path)?.open(mount)))),
    );
    let guesses = [2_u32, 64, 128, 256, 1];
    let token = args.get("token");
    any(
        "open_by_handle.guess",
        mounts().flat_map(|mount| guesses.map(|inode| in_child(|| Handle::root(inode).open(mount)))),
    );
    any(
        "open_by_handle.read",
        args.all("path").flat_map(|path| {
            mounts().map(move |mount| {
                in_child(|| {
                    let opened = Handle::of(path)?.open(mount)?;
                    let text = slurp(&opened)?;
                    if crate::sys::contains(&text, token.as_bytes()) {
                        Ok(format!("read {path} by its handle"))
                    } else {
                        refused("it is another file")
                    }
                })
            })
        }),
    );
}
