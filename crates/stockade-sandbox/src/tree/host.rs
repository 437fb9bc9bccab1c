//! Files of the host that all trees share: the Guest and the generated `/etc`.

use std::{
    fs::{self, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Failure, Step},
    native::{generated_etc, private_directory, subdirectories, unique},
    owner::ProcessId,
};

/// Where the Guest is inside every tree.
pub(crate) const GUEST_PATH: &str = "/run/stockade/guest";

/// Prepared once per process.
#[derive(Debug, Clone)]
pub(crate) struct HostFiles {
    /// Directory that becomes `/run/stockade`.
    pub(crate) guest: PathBuf,
    /// The generated `/etc`.
    pub(crate) etc: PathBuf,
    /// Where sandboxes have their directories.
    pub(crate) sandboxes: PathBuf,
}

impl HostFiles {
    /// Makes what is missing below the state directory.
    pub(crate) fn prepare(state_dir: &Path, owner: &ProcessId) -> Result<Self, Failure> {
        let step = || format!("make the state directory {}", state_dir.display());
        let sandboxes = state_dir.join("sandboxes");
        let (images, guests) = (state_dir.join("images"), state_dir.join("guests"));
        for dir in [state_dir, &sandboxes, &images, &guests] {
            private_directory(dir).step(step())?;
        }
        Ok(Self {
            guest: guest(&guests).step("write the Guest")?,
            etc: generated_etc(&images, owner).step("generate the sandbox's /etc")?,
            sandboxes,
        })
    }

    /// Removes Guests of other versions. Only when no sandbox is alive that could run one.
    pub(crate) fn remove_old(state_dir: &Path) -> Result<(), Failure> {
        for dir in subdirectories(&state_dir.join("guests"))? {
            if !dir.ends_with(version()) {
                let _ = fs::remove_dir_all(&dir);
            }
        }
        Ok(())
    }
}

/// A name that changes with the Guest.
fn version() -> String {
    let mut hasher = DefaultHasher::new();
    crate::GUEST.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The directory with the Guest of this program and the place for the git directory.
fn guest(guests: &Path) -> io::Result<PathBuf> {
    let dir = guests.join(version());
    if dir.join("guest").is_file() {
        return Ok(dir);
    }
    let unfinished = guests.join(format!("new-{}-{}", std::process::id(), unique()));
    fs::create_dir(&unfinished)?;
    fs::create_dir(unfinished.join("base.git"))?;
    fs::write(unfinished.join("guest"), crate::GUEST)?;
    for name in ["", "base.git", "guest"] {
        fs::set_permissions(unfinished.join(name), Permissions::from_mode(0o755))?;
    }
    // Whole or not at all. Somebody else may have been faster, with the same result.
    if let Err(e) = fs::rename(&unfinished, &dir) {
        let _ = fs::remove_dir_all(&unfinished);
        if !dir.join("guest").is_file() {
            return Err(e);
        }
    }
    Ok(dir)
}
