//! Servers that tests talk to, on loopback: a git server (git's own `http-backend` behind HTTP),
//! an API of GitHub's shape, which both ask for a credential, and a mirror of small package
//! registries. All remember what they were sent.

#![forbid(unsafe_code)]

mod cgi;
mod git;
mod github;
mod mirror;
mod packages;
mod pulls;
mod serve;
mod tls;

pub use git::{Credential, GitServer};
pub use github::GitHubServer;
pub use mirror::Mirror;
pub use serve::Seen;
pub use tls::TestAuthority;
