//! Which backend a run gets, and whether it can give what the run asks for.

use std::path::{Path, PathBuf};

use stockade_domain::{Failure, RunSpec};
use stockade_ports::{Capabilities, Images, Sandbox};

use crate::mishap;

/// Image name of the host's own programs.
pub(crate) const HOST_IMAGE: &str = "host";

/// Where a runner with this state directory keeps snapshots.
pub fn snapshots_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("snapshots")
}

/// Whether a backend can give what a run asks for. Asked before the run is created, and again
/// before its sandbox is.
///
/// # Errors
///
/// A terminal failure that names what is missing and what to do instead.
pub fn check_backend(
    spec: &RunSpec,
    capabilities: &Capabilities,
    images: Option<&dyn Images>,
    state_dir: &Path,
) -> Result<(), Failure> {
    let backend = &spec.backend;
    let incapable = |what: &str, hint: &str| {
        let message = format!("the {backend} backend cannot {what}");
        Err(Failure::terminal("backend_incapable", message).with_hint(hint))
    };
    let image = &spec.environment.image;
    if image != HOST_IMAGE {
        if !capabilities.images {
            return incapable("run images", "use 'image: host', or another backend");
        }
        match images {
            Some(images) => images.check(image).map_err(|e| mishap::image(&e))?,
            None => return incapable("run images", "this installation has no image store; use 'image: host'"),
        }
    }
    let snapshot = &spec.snapshot;
    if !snapshot.is_default() && !capabilities.snapshot {
        return incapable(
            "take or restore snapshots",
            "leave the snapshot out, or use the native backend",
        );
    }
    if let Some(digest) = &snapshot.from {
        archive(state_dir, digest)?;
    }
    if spec.environment.limits.io_bytes_per_second.is_some() && !capabilities.limits.contains(&"io") {
        return incapable("limit I/O", "leave 'io_bytes_per_second' out, or use another backend");
    }
    Ok(())
}

/// The archive of a snapshot.
pub(crate) fn archive(state_dir: &Path, digest: &str) -> Result<PathBuf, Failure> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        let message = format!("'{}' is not a snapshot", digest.escape_default());
        return Err(Failure::terminal("snapshot", message)
            .with_hint("write sha256: and 64 hex digits, as the run that kept it says"));
    }
    let archive = snapshots_dir(state_dir).join(hex);
    if archive.is_file() {
        return Ok(archive);
    }
    let message = format!("there is no snapshot {digest} on this host");
    Err(Failure::terminal("snapshot", message).with_hint("a run keeps one with --keep-snapshot and says its digest"))
}

/// The backend of that name.
pub(crate) fn find<'b>(
    backends: &'b [std::sync::Arc<dyn Sandbox>],
    name: &str,
) -> Result<&'b std::sync::Arc<dyn Sandbox>, Failure> {
    backends.iter().find(|backend| backend.name() == name).ok_or_else(|| {
        let known: Vec<_> = backends.iter().map(|backend| backend.name()).collect();
        let message = format!("this runner has no backend '{name}'");
        Failure::terminal("backend_unknown", message).with_hint(format!("it has: {}", known.join(", ")))
    })
}
