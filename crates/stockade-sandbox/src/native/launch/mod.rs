//! What runs between the host process and its sandboxes: processes of one thread, because only
//! such a process may make namespaces.
//!
//! ```text
//! host process ──socket──► zygote ──fork──► launcher ──clone──► first process ──exec──► Guest
//!      └───────────lifeline (a socket each)────┘
//! ```

mod child;
mod confine;
mod explain;
pub(crate) mod image;
mod launcher;
pub(crate) mod lists;
pub(crate) mod mountapi;
pub(crate) mod rootfs;
mod sabotage;
mod seats;
mod snapshot;
pub(crate) mod sources;
mod stage;
pub(crate) mod userns;
pub(crate) mod wire;
mod zygote;

pub(crate) use launcher::clean;
#[doc(hidden)]
pub use sabotage::{Sabotage, sabotaged_launcher_main};
pub use zygote::launcher_main;
