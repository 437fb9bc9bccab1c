//! What may be asked of the native sandbox.

use std::fs;

use stockade_ports::{SandboxError, SandboxSpec};

use crate::native::MIN_DISK;

/// Refuses what cannot work, and makes every path absolute.
pub(crate) fn checked(mut spec: SandboxSpec) -> Result<SandboxSpec, SandboxError> {
    let invalid = |why: String| Err(SandboxError::Invalid(why));
    let limits = &spec.limits;
    if limits.memory_bytes == 0 || limits.pids == 0 || limits.cpu_millis == 0 {
        return invalid("a limit of zero on memory, processes or CPU: nothing could run".to_owned());
    }
    if limits.disk_bytes < MIN_DISK {
        return invalid(format!("a disk limit below {MIN_DISK} bytes: nothing could run"));
    }
    for path in [&mut spec.workspace, &mut spec.base_git, &mut spec.agents_dir]
        .into_iter()
        .flatten()
    {
        let absolute = fs::canonicalize(&*path);
        *path = match absolute {
            Ok(absolute) if absolute.is_dir() => absolute,
            Ok(_) => return invalid(format!("{} is not a directory", path.display())),
            Err(e) => return invalid(format!("the directory {}: {e}", path.display())),
        };
    }
    Ok(spec)
}
