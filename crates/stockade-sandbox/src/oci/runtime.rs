//! The runtimes' command lines.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::failure::{Failure, Step};

/// Where programs are looked for by name, and what a runtime finds its own helpers by.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An OCI runtime this backend knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The reference implementation.
    Runc,
    /// The one in C.
    Crun,
    /// gVisor: a kernel in user space.
    Runsc,
}

impl Runtime {
    /// Its name, which is also the backend's and, in Debian, its package's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
        }
    }

    /// Whether its containers have a user namespace. gVisor's users are its own affair: on the
    /// host its kernel runs as nobody, in a namespace without any privilege.
    pub(super) fn maps_users(self) -> bool {
        self != Self::Runsc
    }

    /// Whether it makes the cgroups itself. Where a runtime lets us, we make them and start
    /// it inside: `crun` refuses hosts with both versions, `runsc` wants its own way.
    pub(super) fn makes_cgroups(self) -> bool {
        self == Self::Runc
    }

    pub(super) fn defences(self) -> Vec<String> {
        let own = match self {
            Self::Runc | Self::Crun => "user namespace",
            Self::Runsc => "gvisor",
        };
        vec![own.to_owned(), "seccomp".to_owned()]
    }

    /// Finds the program as a shell would.
    pub(super) fn find(self, program: &Path) -> Result<PathBuf, Failure> {
        let runs =
            |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        let found = if program.components().count() > 1 {
            runs(program).then(|| program.to_owned())
        } else {
            let places = PATH.split(':').map(|dir| Path::new(dir).join(program));
            places.into_iter().find(|path| runs(path))
        };
        found.ok_or_else(|| {
            let name = self.name();
            Failure::new(
                format!("find {name}"),
                format!("there is no program {}", program.display()),
            )
            .with_fix(format!("install it (apt-get install {name}) or name its path"))
        })
    }

    /// The first line of what it says about its version.
    pub(super) fn version(self, program: &Path) -> Result<String, Failure> {
        let step = || format!("ask {} for its version", program.display());
        let output = Command::new(program)
            .arg("--version")
            .env_clear()
            .env("PATH", PATH)
            .output();
        let output = output.step(step())?;
        let said = String::from_utf8_lossy(&output.stdout);
        match said.lines().next() {
            Some(line) if output.status.success() => Ok(line.trim().to_owned()),
            _ => Err(Failure::new(step(), String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Arguments that run the bundle in a sandbox's directory until it ends.
    pub(super) fn run(self, dir: &Path, name: &str) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--root".into(), dir.join("runtime").into()];
        let own: &[&str] = match self {
            Self::Runc => &[],
            // It is started in its cgroup.
            Self::Crun => &["--cgroup-manager=disabled"],
            // Nothing but the sandbox touches its files, so gVisor may remember what it saw.
            Self::Runsc => &["--ignore-cgroups", "--network=host", "--file-access-mounts=exclusive"],
        };
        args.extend(own.iter().map(OsString::from));
        args.extend(["run".into(), "--bundle".into(), dir.into()]);
        args.extend(["--pid-file".into(), pid_file(dir).into(), name.into()]);
        args
    }
}

/// Where a runtime notes the number of the container's first process, or of gVisor's kernel.
pub(super) fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_runtime_names_its_package() {
        for program in ["no-such-runtime", "/no/such/runtime", "/etc/passwd"] {
            let failure = Runtime::Runsc.find(Path::new(program)).expect_err(program);
            assert!(failure.cause.contains(program), "{failure:?}");
            assert!(failure.fix.is_some_and(|fix| fix.contains("apt-get install runsc")));
        }
        assert!(Runtime::Runc.find(Path::new("sh")).is_ok());
    }

    #[test]
    fn a_program_that_is_no_runtime_is_told() {
        let failure = Runtime::Runc.version(Path::new("/bin/false")).expect_err("no version");
        assert!(failure.step.contains("/bin/false"), "{failure:?}");
    }
}
