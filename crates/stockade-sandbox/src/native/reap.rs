//! Removing what sandboxes of dead processes left.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    etc,
    host::UNFINISHED,
    launch::{clean, wire::LaunchSpec},
};
use crate::{
    failure::{Failure, Step},
    owner::{ProcessId, Record, live_launcher},
};

/// Removes what sandboxes of dead processes left below the state directory.
pub(crate) fn reap(state_dir: &Path) -> Result<u32, Failure> {
    let mut count = 0;
    let mut live = 0;
    for dir in subdirectories(&state_dir.join("sandboxes"))? {
        let record = Record::read(&dir);
        if record.as_ref().is_ok_and(|r| r.owner.is_alive()) {
            live += 1;
            continue;
        }
        // Its own launcher is probably at it already; a hung one is ended. What it
        // holds dies with it.
        if let Some(launcher) = live_launcher(&dir) {
            let _ = kill(Pid::from_raw(launcher.pid), Signal::SIGKILL);
        }
        let leftovers = LaunchSpec {
            layers: Vec::new(),
            etc: PathBuf::new(),
            workspace: None,
            base_git: None,
            agents: None,
            copy_workspace: false,
            cgroups: record.map(|r| r.cgroups).unwrap_or_default(),
            disk_bytes: 0,
            pids: None,
            restore: None,
            warm: false,
            dir,
        };
        clean(&leftovers)?;
        count += 1;
    }
    if live == 0 {
        remove_old_images(&state_dir.join("images"))?;
    }
    Ok(count)
}

/// Removes generated directories no new sandbox would use. Only called when there is no
/// live sandbox that could still use one.
pub(crate) fn remove_old_images(images: &Path) -> Result<(), Failure> {
    let plan = etc::Plan::make(Path::new("/etc")).step("read the host's /etc")?;
    let current = plan.fingerprint();
    for dir in subdirectories(images)? {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let maker = name.strip_prefix(UNFINISHED).and_then(|rest| {
            let pid = rest.split('-').next()?.parse().ok()?;
            ProcessId::of(pid).ok()
        });
        if name != current && maker.is_none() {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}

pub(crate) fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.step(format!("look into {}", dir.display()))?,
    };
    let dirs = entries.flatten().map(|entry| entry.path());
    Ok(dirs.filter(|path| path.is_dir()).collect())
}
