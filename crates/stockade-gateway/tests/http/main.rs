//! The gateway as its callers see it: over HTTP, on a socket.

mod approvals;
mod creating;
mod edge;
mod events;
mod explaining;
mod harness;
mod identity;
mod problems;
mod publishing;
mod raw;
mod revoking;
mod runs;
mod secrets;
mod tokens;
