//! The conformance suite: everything a sandbox promises, asked of every backend.
//!
//! A case is written once and becomes a test per backend: `files::runsc::files_round_trip`.
//! The modules and what they hold every backend to:
//!
//! | Module | Promise |
//! |---|---|
//! | `commands` | streams, exit codes, signals, timeouts of whole trees, input, environment |
//! | `entries` | what is there is told as it is, made, moved and removed, however deep or wide |
//! | `files` | whole reads and writes, limits, no following of links, a workspace that is never written |
//! | `images` | an image is the root, its layers cover each other, and nothing in it leads out |
//! | `inputs` | requests that make no sense are refused and leave nothing |
//! | `isolation` | no secret, path, process or descriptor of the host, or of a neighbour, is inside |
//! | `leftovers` | no process, file, mount or cgroup stays behind, however the owner ended |
//! | `limits` | disk, memory and processes are bounded, and evidence says which |
//! | `measured` | a sandbox that holds is let through, one that does not is noticed and destroyed |
//! | `network` | nothing leaves but through the boundary's sockets |
//! | `pool` | a sandbox made beforehand is like any other, and nobody's twice |
//! | `pause` | a paused sandbox stands still, goes on, and can be ended |
//! | `privileges` | no capability, no dangerous system call, no key of the host's, no way to either |
//! | `races` | no path is a trap, however often it is swapped meanwhile |
//! | `snapshots` | what was written comes back in another sandbox (native alone) |
//! | `steering` | output limits, signals, stopping and many commands at once |
//! | `terminal` | a command on a terminal has one, with a size, and is heard to its end |
//! | `transfer` | files go in and out in pieces, many at once, and a slow reader holds up nobody |
//! | `watch` | changes are told, and so is that some were lost |
//!
//! | Mode | Backend | Beside that |
//! |---|---|---|
//! | `root` | native, as root | |
//! | `rootless` | native, as an ordinary user | limits only where its cgroup is delegated |
//! | `runc`, `crun` | OCI runtimes, as root | the reaper removes what a killed owner left |
//! | `docker` | the Docker Engine API, as root | the same; needs a daemon (`cargo xtask docker COMMAND`) |
//! | `runsc` | gVisor, as root | the same; a kernel of its own: what it lacks is asserted in each case |
//!
//! Each case runs in a process of its own (this binary again), because the user differs
//! and because what is left behind is judged after that process has ended. As an ordinary user
//! only `rootless` has something to test. A runtime that is not installed fails its cases and
//! names its package.
// A test that starts itself again as another user tells its child through the environment.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr, unused_crate_dependencies)]

mod bed;
mod commands;
mod docker_bed;
mod entries;
mod files;
mod images;
mod inputs;
mod isolation;
mod leftovers;
mod limits;
mod measured;
mod modes;
mod network;
mod pause;
mod pool;
mod privileges;
mod races;
mod snapshots;
mod steering;
mod terminal;
mod transfer;
mod watch;
