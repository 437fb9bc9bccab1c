//! Git as data: references, what a push asks for, the rules for it, hosts and pull requests.
//!
//! This is the data and its syntax; `stockade-policy` decides with it.

mod host;
mod pull_request;
mod refs;
mod rules;

pub use host::{GitHost, HostCredential, OpenPullRequest, Publication, PublishPlan, PullRequestPlan};
pub use pull_request::{InvalidDraft, PullRequestDraft, RepoSlug, readable};
pub use refs::{InvalidObjectId, InvalidRefName, ObjectId, RefName, RefUpdate, UpdateKind};
pub use rules::{InvalidPrefix, RefPrefix, RefRules};
