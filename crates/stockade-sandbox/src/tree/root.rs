//! The root of a tree: the host's programs, or an image.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::Path,
};

use nix::mount::MsFlags;

use super::{
    Bind, Root,
    mounts::{attach, bind, directory, read_only},
};
use crate::{
    failure::{Failure, Step},
    native::launch::{
        image,
        mountapi::{self, NODEV, NOEXEC, NOSUID, RDONLY},
        rootfs::{DIRECTORIES, PROGRAMS},
        sources,
    },
};

/// Most layers of one overlay: the kernel's own bound.
const MAX_LAYERS: usize = 500;

/// A root's directories as detached mounts.
pub(super) enum Opened {
    Host(OwnedFd),
    Layers(Vec<OwnedFd>),
}

impl Opened {
    pub(super) fn open(root: &Root) -> Result<Self, Failure> {
        match root {
            Root::Host(etc) => sources::open(etc).map(Self::Host),
            Root::Layers(layers) if layers.is_empty() || layers.len() > MAX_LAYERS => Err(Failure::new(
                "open the image's layers",
                format!("{} layers, where 1 to {MAX_LAYERS} can be mounted", layers.len()),
            )),
            Root::Layers(layers) => {
                let layers = layers.iter().map(|layer| sources::open(layer));
                layers.collect::<Result<_, _>>().map(Self::Layers)
            }
        }
    }
}

/// Makes a root of the host's programs; says what is mounted in it.
pub(super) fn host(etc: OwnedFd, base: &Path) -> Result<Vec<Bind>, Failure> {
    let mut shown = Vec::new();
    for dir in DIRECTORIES {
        directory(&format!("r/{dir}"), 0o755)?;
    }
    symlink("/run", "r/var/run").step("make the link /var/run")?;
    let show = |name: &str| Bind {
        source: base.join("r").join(name),
        target: format!("/{name}"),
        exec: true,
    };
    for name in PROGRAMS {
        let (outside, inside) = (format!("/{name}"), format!("r/{name}"));
        let Ok(meta) = fs::symlink_metadata(&outside) else {
            continue;
        };
        if meta.is_symlink() {
            let target = fs::read_link(&outside).step(format!("read the link {outside}"))?;
            symlink(target, &inside).step(format!("make the link {outside}"))?;
        } else if meta.is_dir() {
            directory(&inside, 0o755)?;
            bind(&outside, &inside, MsFlags::MS_REC)?;
            mountapi::restrict(&inside, RDONLY | NOSUID | NODEV).step(format!("make {outside} read-only"))?;
            shown.push(show(name));
        }
    }
    // Settings of the host's own programs, which may hold secrets.
    if Path::new("r/usr/local/etc").is_dir() {
        bind("l/empty", "r/usr/local/etc", MsFlags::empty())?;
        mountapi::restrict("r/usr/local/etc", RDONLY | NOSUID | NODEV | NOEXEC).step("hide /usr/local/etc")?;
    }
    directory("l/etc", 0o755)?;
    attach(&etc, "l/etc")?;
    read_only("l/etc", "r/etc")?;
    shown.push(show("etc"));
    Ok(shown)
}

/// Makes a root of an image's layers, with the sandbox's own accounts and names on top. All of
/// it is the root itself, so there is nothing else to show.
pub(super) fn layers(layers: &[OwnedFd]) -> Result<Vec<Bind>, Failure> {
    for dir in DIRECTORIES {
        directory(&format!("r/{dir}"), 0o755)?;
    }
    image::lay(layers)?;
    Ok(Vec::new())
}
