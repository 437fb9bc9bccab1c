//! Why a sandbox operation failed.

/// Why a sandbox operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host lacks something the backend needs.
    #[error("this host cannot run the {backend} sandbox: {what}; {fix}")]
    Unsupported {
        /// Backend name.
        backend: &'static str,
        /// What is missing.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// The backend cannot do what was asked; its [`super::Capabilities`] say so.
    #[error("the {backend} backend cannot {what}")]
    Incapable {
        /// Backend name.
        backend: &'static str,
        /// What was asked, as an infinitive: "take snapshots".
        what: &'static str,
    },
    /// A step of the set-up failed; nothing was left behind.
    #[error("could not set up the sandbox at step '{step}': {cause}")]
    Setup {
        /// The step, in words.
        step: String,
        /// The system's reason.
        cause: String,
    },
    /// The sandbox did not measure up; it was destroyed before anything ran in it.
    #[error("the sandbox did not hold what it promises, so nothing was started in it: {}", failed.join("; "))]
    Unproved {
        /// One sentence for each failed check.
        failed: Vec<String>,
    },
    /// The request itself was wrong.
    #[error("{0}")]
    Invalid(String),
    /// No such file inside.
    #[error("no such file in the sandbox: {0}")]
    NotFound(String),
    /// A file or an output is over its limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The sandbox's bounded writable layer is full.
    #[error("the sandbox's disk is full: {0}")]
    DiskFull(String),
    /// The operating system inside refused.
    #[error("{operation} failed in the sandbox: {cause}")]
    Inside {
        /// What was tried.
        operation: String,
        /// Why it failed.
        cause: String,
    },
    /// The sandbox has ended.
    #[error("the sandbox has ended: {0}")]
    Gone(String),
}
