//! Servers that tests talk to, on loopback: a git server (git's own `http-backend` behind HTTP)
//! and an API of GitHub's shape. Both ask for a credential and remember what they were sent.

#![forbid(unsafe_code)]

mod cgi;
mod git;
mod github;
mod pulls;
mod serve;

pub use git::{Credential, GitServer};
pub use github::GitHubServer;
pub use serve::Seen;
