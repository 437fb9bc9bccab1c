//! The runtime's `config.json` (OCI runtime specification 1.0.2).

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use stockade_domain::SandboxLimits;

use super::runtime::Runtime;
use crate::{
    INSIDE_ID,
    failure::{Failure, Step},
    native::launch::rootfs::{HIDDEN_DIRECTORIES, HIDDEN_FILES},
    tree::{Bind, GUEST_PATH, Tree},
};

/// The host uid of the sandbox's superuser, above the uid of its user. Runtimes need one to
/// set a container up with; nothing of the sandbox ever runs as it.
const SUPERUSER: u32 = 65_536;
/// Files a process may have open.
const FILES: u64 = 65_536;

/// What a spec is made of.
pub(super) struct Parts<'a> {
    pub(super) runtime: Runtime,
    pub(super) tree: &'a Tree,
    pub(super) limits: &'a SandboxLimits,
    /// Host uid of the sandbox's user, where users are mapped.
    pub(super) uid: Option<u32>,
    /// Where the runtime is to make cgroups, if it must.
    pub(super) cgroup: Option<&'a Path>,
}

/// Writes the specification.
pub(super) fn write(parts: &Parts<'_>) -> Result<Value, Failure> {
    let files = getrlimit(Resource::RLIMIT_NOFILE)
        .step("read the limit on open files")?
        .1
        .min(FILES);
    let mut rlimits = vec![rlimit("RLIMIT_NOFILE", files), rlimit("RLIMIT_CORE", 1)];
    if parts.runtime == Runtime::Runsc {
        // Its kernel counts per user, and there is one. On the host it needs more than that.
        rlimits.push(rlimit("RLIMIT_NPROC", parts.limits.pids));
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "mode=755", "size=65536"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
    ];
    mounts.extend(parts.tree.writable.iter().map(bind));
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": { "path": parts.tree.root, "readonly": true },
        "process": {
            "terminal": false,
            "user": { "uid": INSIDE_ID, "gid": INSIDE_ID },
            "args": [GUEST_PATH],
            "env": [],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
            "rlimits": rlimits,
            "noNewPrivileges": true,
            // When memory runs out the sandbox goes before anything of the host.
            "oomScoreAdj": 500,
        },
        "mounts": mounts,
        "linux": linux(parts),
    }))
}

fn rlimit(name: &str, value: u64) -> Value {
    json!({ "type": name, "hard": value, "soft": value })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn bind(bind: &Bind) -> Value {
    let mut options = vec!["bind", "rw", "nosuid", "nodev"];
    if !bind.exec {
        options.push("noexec");
    }
    json!({ "destination": bind.target, "type": "bind", "source": bind.source, "options": options })
}

fn linux(parts: &Parts<'_>) -> Value {
    let mut namespaces = vec![
        json!({ "type": "pid" }),
        json!({ "type": "ipc" }),
        json!({ "type": "uts" }),
        json!({ "type": "mount" }),
        // The one the runtime is started in, said aloud: without it gVisor would ask for
        // another and runc take it as the host's.
        json!({ "type": "network", "path": "/proc/self/ns/net" }),
    ];
    let hidden = HIDDEN_FILES.iter().chain(&HIDDEN_DIRECTORIES);
    let hidden: Vec<_> = hidden.map(|name| format!("/proc/{name}")).collect();
    let mut linux = json!({ "maskedPaths": hidden, "readonlyPaths": ["/proc/sys"] });
    if let Some(uid) = parts.uid {
        namespaces.extend([json!({ "type": "user" }), json!({ "type": "cgroup" })]);
        let map = |inside: u32, outside: u32| json!({ "containerID": inside, "hostID": outside, "size": 1 });
        let mapping = json!([map(0, uid + SUPERUSER), map(INSIDE_ID, uid)]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    linux["namespaces"] = namespaces.into();
    if let Some(cgroup) = parts.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
        // The limits are there already; no device is.
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    }
    linux
}
