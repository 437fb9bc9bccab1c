//! What is found out about the host and made on it once per process.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Uid, geteuid},
};

use super::etc;
use crate::{
    cgroup::CgroupPlan,
    failure::{Failure, Step},
    owner::ProcessId,
};

/// Start of the names of images that are being made.
pub(super) const UNFINISHED: &str = "new-";

/// What is found out and made once per process.
pub(super) struct Host {
    pub(super) owner: ProcessId,
    pub(super) guest: OwnedFd,
    pub(super) etc: PathBuf,
    pub(super) cgroups: CgroupPlan,
    pub(super) pids_by_rlimit: bool,
    pub(super) serial: AtomicU64,
}

impl Host {
    pub(super) fn prepare(state_dir: &Path) -> Result<Self, Failure> {
        let step = || format!("make the state directory {}", state_dir.display());
        private_directory(state_dir).step(step())?;
        private_directory(&state_dir.join("sandboxes")).step(step())?;
        private_directory(&state_dir.join("images")).step(step())?;
        let owner = ProcessId::own().step("identify this process")?;
        let etc = generated_etc(&state_dir.join("images"), &owner).step("generate the sandbox's /etc")?;
        Ok(Self {
            guest: guest_memory().step("keep the Guest in memory")?,
            cgroups: CgroupPlan::discover(),
            pids_by_rlimit: kernel_at_least(5, 14),
            serial: AtomicU64::new(0),
            owner,
            etc,
        })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let enforced = self.enforced();
        let missing = ["memory", "pids", "cpu"].into_iter();
        let missing: Vec<_> = missing.filter(|m| !enforced.iter().any(|e| e == m)).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "no writable cgroup to limit {}: start stockade as root or in a delegated cgroup \
             (systemd-run --user --scope -p Delegate=yes stockade …)",
            missing.join(" and ")
        )]
    }

    pub(super) fn enforced(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.cgroups.enforces("memory") {
            all.push("memory".to_owned());
        }
        if self.cgroups.enforces("pids") || self.pids_by_rlimit {
            all.push("pids".to_owned());
        }
        if self.cgroups.enforces("cpu") {
            all.push("cpu".to_owned());
        }
        if self.cgroups.enforces("io") {
            all.push("io".to_owned());
        }
        all.push("disk".to_owned());
        all
    }
}

/// Tells several values of one process apart.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The generated `/etc`, shared by all sandboxes as long as the host's does not change.
pub(crate) fn generated_etc(images: &Path, owner: &ProcessId) -> io::Result<PathBuf> {
    let plan = etc::Plan::make(Path::new("/etc"))?;
    let image = images.join(plan.fingerprint());
    let etc = image.join("etc");
    if !etc.is_dir() {
        let unfinished = images.join(format!("{UNFINISHED}{}-{}", owner.pid, unique()));
        plan.write(&unfinished.join("etc"))?;
        // Whole or not at all. Somebody else may have been faster, with the same result.
        if let Err(e) = fs::rename(&unfinished, &image) {
            let _ = fs::remove_dir_all(&unfinished);
            if !etc.is_dir() {
                return Err(e);
            }
        }
    }
    Ok(etc)
}

pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(path)?);
    if Uid::from_raw(owner) != geteuid() {
        return Err(io::Error::other(format!(
            "it belongs to uid {owner}, not to this process's user"
        )));
    }
    Ok(())
}

/// The Guest as a sealed file without a name: one copy for all sandboxes, which nobody can change.
fn guest_memory() -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = MFdFlags::from_bits_retain(flags.bits() | MFD_EXEC);
    // Kernels before 6.3 do not know the flag and need none.
    let fd = memfd_create(c"stockade-guest", executable).or_else(|_| memfd_create(c"stockade-guest", flags))?;
    let mut file = File::from(fd);
    file.write_all(crate::GUEST)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}
