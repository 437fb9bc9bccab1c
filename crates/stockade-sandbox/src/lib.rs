//! Sandbox backends. Today there is one: [`NativeSandbox`], plain Linux namespaces.
//!
//! ```text
//! host process ──socket (lifeline)──► launcher ──clone──► first process ──exec──► Guest (pid 1)
//!      ▲  │                        one thread, same                                   ▲
//!      │  └─────────────── frames over two pipes ─────────────────────────────────────┘
//!      └── boundary sockets, bound inside the sandbox's network namespace
//! ```
//!
//! The launcher is the host program started again as [`launcher_main`]: namespaces can
//! only be made by a process of one thread. It outlives the set-up, watches the socket,
//! and removes what the sandbox leaves when either side ends, `kill -9` included.

mod boundary;
mod cgroup;
mod client;
mod copy;
mod docker;
mod failure;
mod filter;
mod live;
mod measure;
mod native;
mod oci;
mod owner;
mod request;
mod tree;
mod unisolated;

pub use boundary::original_destination;
pub use docker::{DockerConfig, DockerSandbox};
#[doc(hidden)]
pub use native::launch::{Sabotage, sabotaged_launcher_main};
pub use native::{NativeConfig, NativeSandbox, launch::launcher_main};
pub use oci::{OciConfig, OciSandbox, Runtime};
pub use unisolated::{UnisolatedConfig, UnisolatedSandbox};

/// The static Guest, built by this crate's build script.
pub(crate) static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.bin"));

/// Backend name in configuration, errors and receipts.
const BACKEND: &str = "native";
/// The one uid and gid there is inside a sandbox.
pub(crate) const INSIDE_ID: u32 = 1000;
