//! The backends a case runs on, and the macro that makes a test of each.

use std::path::Path;

use stockade_ports::sandbox::Sandbox;
use stockade_sandbox::{NativeSandbox, OciConfig, OciSandbox, Runtime};

use crate::bed::config;

/// A backend, and for the native one whom it runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// `native` as root.
    Root,
    /// `native` as an ordinary user.
    Rootless,
    /// `runc`.
    Runc,
    /// `crun`.
    Crun,
    /// `runsc`: gVisor.
    Runsc,
    /// `docker`, on the daemon of the test run.
    Docker,
}

impl Mode {
    /// Name of the module its tests are in.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Rootless => "rootless",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
            Self::Docker => "docker",
        }
    }

    pub(crate) fn is_native(self) -> bool {
        matches!(self, Self::Root | Self::Rootless)
    }

    /// Whether the agent talks to the host's kernel and not to one of its own.
    pub(crate) fn shares_the_kernel(self) -> bool {
        self != Self::Runsc
    }

    /// What facts and evidence call it.
    pub(crate) fn rights(self) -> &'static str {
        if self == Self::Rootless { "rootless" } else { "root" }
    }

    /// The backend on a bed's directory.
    pub(crate) fn sandbox(self, dir: &Path) -> Box<dyn Sandbox> {
        let oci = |runtime: Runtime| {
            Box::new(OciSandbox::new(OciConfig {
                runtime,
                program: runtime.name().into(),
                state_dir: dir.join("state"),
            }))
        };
        match self {
            Self::Root | Self::Rootless => Box::new(NativeSandbox::new(config(dir))),
            Self::Runc => oci(Runtime::Runc),
            Self::Crun => oci(Runtime::Crun),
            Self::Runsc => oci(Runtime::Runsc),
            Self::Docker => Box::new(crate::docker_bed::sandbox(dir)),
        }
    }
}

/// Makes a test per mode and case: `cases!(a, b)` on every backend. What only some can be
/// asked for follows after a semicolon, under the name of those: `native` (root and rootless),
/// `shared_kernel` (all but gVisor), `oci` (runc, crun, runsc).
macro_rules! cases {
    ($($name:ident),* $(,)? $(; native: $($native:ident),+ $(,)?)? $(; shared_kernel: $($shared:ident),+ $(,)?)? $(; oci: $($oci:ident),+ $(,)?)?) => {
        mod root { $crate::modes::tests!(Root: $($name)* $($($native)+)? $($($shared)+)?); }
        mod rootless { $crate::modes::tests!(Rootless: $($name)* $($($native)+)? $($($shared)+)?); }
        mod runc { $crate::modes::tests!(Runc: $($name)* $($($shared)+)? $($($oci)+)?); }
        mod crun { $crate::modes::tests!(Crun: $($name)* $($($shared)+)? $($($oci)+)?); }
        mod docker { $crate::modes::tests!(Docker: $($name)* $($($shared)+)?); }
        mod runsc { $crate::modes::tests!(Runsc: $($name)* $($($oci)+)?); }
    };
}
pub(crate) use cases;

/// The tests of one mode.
macro_rules! tests {
    ($mode:ident: $($name:ident)*) => {
        $(#[test] fn $name() {
            $crate::bed::case($crate::modes::Mode::$mode, concat!(module_path!(), "::", stringify!($name)), super::$name);
        })*
    };
}
pub(crate) use tests;
