//! Launchers that leave a defence out, so that tests can show that the measurement notices.
//!
//! Only the launcher program of this crate's tests can ask for one; no setting, message or
//! argument of the product leads here.

use std::sync::OnceLock;

use super::wire::LaunchSpec;
use crate::filter::Filters;

/// What a launcher leaves out.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// No system call filter.
    Filter,
    /// The bounding set stays full.
    Capabilities,
    /// No limit on memory, processes or CPU.
    Limits,
    /// Twice the disk.
    Disk,
}

static SABOTAGE: OnceLock<Sabotage> = OnceLock::new();

/// Runs a launcher that leaves something out.
#[doc(hidden)]
#[must_use]
pub fn sabotaged_launcher_main(what: Sabotage) -> i32 {
    let _ = SABOTAGE.set(what);
    super::launcher_main()
}

/// Whether this is left out here.
pub(super) fn leaves_out(what: Sabotage) -> bool {
    SABOTAGE.get() == Some(&what)
}

/// The filters to install.
pub(super) fn filters(filters: Filters) -> Filters {
    if leaves_out(Sabotage::Filter) {
        Filters::default()
    } else {
        filters
    }
}

/// The orders to carry out.
pub(super) fn orders(mut spec: LaunchSpec) -> LaunchSpec {
    if leaves_out(Sabotage::Limits) {
        spec.pids = None;
        spec.cgroups.iter_mut().for_each(|group| group.settings.clear());
    }
    if leaves_out(Sabotage::Disk) {
        spec.disk_bytes *= 2;
    }
    spec
}
