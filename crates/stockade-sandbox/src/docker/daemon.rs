//! The Docker daemon: reaching it, and whether it can serve at all.

use std::{io, path::Path};

use bollard::{
    ClientVersion, Docker,
    errors::Error,
    models::{SystemInfo, SystemInfoCgroupVersionEnum},
};
use stockade_ports::sandbox::SandboxError;
use tokio::net::UnixStream;

use super::BACKEND;

/// Longest the daemon may take to answer one request, in seconds.
const ANSWER: u64 = 120;
/// The API this speaks at most; an older daemon is met at its own version.
const NEWEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 53,
};
/// The first API with private cgroup namespaces: Docker 20.10.
const OLDEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

/// A daemon that answers, and what it says of itself.
pub(super) struct Daemon {
    pub(super) api: Docker,
    info: SystemInfo,
    version: ClientVersion,
}

impl Daemon {
    /// Connects, agrees on a version and refuses a daemon that cannot keep the promises.
    pub(super) async fn reach(socket: &Path) -> Result<Self, SandboxError> {
        listens(socket).await?;
        let path = socket.to_str().ok_or_else(|| {
            unsupported(
                format!("the socket's path {} is not text", socket.display()),
                "give it another path",
            )
        })?;
        let api = Docker::connect_with_unix(path, ANSWER, &NEWEST).map_err(step("connect to the Docker daemon"))?;
        let api = api.negotiate_version().await;
        let api = api.map_err(step("agree with the Docker daemon on a version"))?;
        let version = api.client_version();
        if (version.major_version, version.minor_version) < (OLDEST.major_version, OLDEST.minor_version) {
            return Err(unsupported(
                format!(
                    "the Docker daemon speaks API {}.{} and no later one",
                    version.major_version, version.minor_version
                ),
                "install Docker 20.10 or later",
            ));
        }
        let info = api.info().await.map_err(step("ask the Docker daemon about itself"))?;
        refuse_strange(&info)?;
        Ok(Self { api, info, version })
    }

    /// Limits its containers can have, of `memory`, `pids`, `cpu`.
    pub(super) fn limits(&self) -> Vec<&'static str> {
        let has = |fact: Option<bool>| fact == Some(true);
        let all = [
            ("memory", has(self.info.memory_limit)),
            ("pids", has(self.info.pids_limit)),
            ("cpu", has(self.info.cpu_cfs_quota)),
        ];
        all.into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
            .collect()
    }

    /// Security modules it puts containers under, for example `apparmor`.
    pub(super) fn modules(&self) -> Vec<String> {
        let options = self.info.security_options.iter().flatten();
        let names = options.filter_map(|option| option.strip_prefix("name=")?.split(',').next());
        names
            .filter(|name| ["apparmor", "selinux"].contains(name))
            .map(str::to_owned)
            .collect()
    }

    /// What an operator should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let server = self.info.server_version.as_deref().unwrap_or("of an unknown version");
        let cgroup = match self.info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => "2",
            _ => "1",
        };
        let mut notes = vec![format!(
            "Docker {server}, API {}.{}, cgroup version {cgroup}",
            self.version.major_version, self.version.minor_version
        )];
        if self.info.memory_limit == Some(true) && self.info.swap_limit != Some(true) {
            notes.push(
                "this kernel does not count swap: sandboxes may use some beyond their memory limit (boot with swapaccount=1)"
                    .to_owned(),
            );
        }
        notes
    }
}

/// Whether somebody listens there that lets us in.
async fn listens(socket: &Path) -> Result<(), SandboxError> {
    let Err(error) = UnixStream::connect(socket).await else {
        return Ok(());
    };
    let at = socket.display();
    Err(match error.kind() {
        io::ErrorKind::NotFound => unsupported(
            format!("there is no Docker socket at {at}"),
            "start the Docker daemon (systemctl start docker) or name its socket in the settings",
        ),
        io::ErrorKind::PermissionDenied => unsupported(
            format!("this user may not use the Docker socket {at}"),
            "run stockade as root",
        ),
        io::ErrorKind::ConnectionRefused => unsupported(
            format!("nobody listens on the Docker socket {at}"),
            "start the Docker daemon (systemctl start docker)",
        ),
        _ => unsupported(
            format!("the Docker socket {at}: {error}"),
            "name the socket of a local Docker daemon",
        ),
    })
}

/// Daemons whose containers are not what they look like.
fn refuse_strange(info: &SystemInfo) -> Result<(), SandboxError> {
    if info.os_type.as_deref() != Some("linux") {
        return Err(unsupported(
            "the Docker daemon does not run Linux containers",
            "use one that does",
        ));
    }
    let option = |name: &str| {
        let mut options = info.security_options.iter().flatten();
        options.any(|option| option.strip_prefix("name=").and_then(|o| o.split(',').next()) == Some(name))
    };
    if option("rootless") {
        return Err(unsupported(
            "the Docker daemon is rootless and keeps its containers where their network cannot be prepared",
            "name the socket of a Docker daemon that runs as root, or use the native backend, which is rootless itself",
        ));
    }
    if option("userns") {
        return Err(unsupported(
            "the Docker daemon maps user ids (userns-remap), and the sandbox's files would belong to nobody",
            "start the daemon without userns-remap, or use the native backend, which has user namespaces of its own",
        ));
    }
    if !option("seccomp") {
        return Err(unsupported(
            "the Docker daemon has no system call filters",
            "use a daemon that was built with seccomp",
        ));
    }
    Ok(())
}

pub(super) fn unsupported(what: impl Into<String>, fix: impl Into<String>) -> SandboxError {
    SandboxError::Unsupported {
        backend: BACKEND,
        what: what.into(),
        fix: fix.into(),
    }
}

/// Names the step an answer belongs to.
pub(super) fn step(step: &'static str) -> impl Fn(Error) -> SandboxError {
    move |error| SandboxError::Setup {
        step: step.to_owned(),
        cause: words(&error),
    }
}

/// What the daemon said, without the library's preamble.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            format!("the Docker daemon answered {status_code}: {}", message.trim())
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

/// Whether the daemon does not know what was asked for.
pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the daemon is doing what was asked for already, or cannot for now.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 409, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(options: &[&str]) -> SystemInfo {
        SystemInfo {
            os_type: Some("linux".to_owned()),
            security_options: Some(options.iter().map(|&o| o.to_owned()).collect()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn daemons_that_cannot_keep_the_promises_are_refused_with_the_remedy() {
        assert!(refuse_strange(&info(&["name=seccomp,profile=default", "name=apparmor"])).is_ok());
        for (options, word) in [
            (vec!["name=seccomp,profile=default", "name=rootless"], "rootless"),
            (vec!["name=seccomp,profile=default", "name=userns"], "userns-remap"),
            (vec!["name=apparmor"], "seccomp"),
        ] {
            let error = refuse_strange(&info(&options)).expect_err(word).to_string();
            assert!(error.contains(word) && error.contains("docker sandbox"), "{error}");
        }
        let windows = SystemInfo {
            os_type: Some("windows".to_owned()),
            ..info(&["name=seccomp"])
        };
        assert!(refuse_strange(&windows).is_err());
    }

    #[tokio::test]
    async fn a_socket_without_a_daemon_says_what_to_do() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("docker.sock");
        let error = listens(&socket).await.expect_err("absent").to_string();
        assert!(
            error.contains("no Docker socket") && error.contains("start the Docker daemon"),
            "{error}"
        );
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("binds"));
        let error = listens(&socket).await.expect_err("nobody").to_string();
        assert!(error.contains("nobody listens"), "{error}");
        std::fs::write(dir.path().join("file"), "").expect("writes");
        assert!(listens(&dir.path().join("file")).await.is_err());
        let _alive = std::os::unix::net::UnixListener::bind(dir.path().join("alive")).expect("binds");
        assert!(listens(&dir.path().join("alive")).await.is_ok(), "the control");
    }
}
