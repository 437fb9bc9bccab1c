//! Recording what a provider says, and saying it again.
//!
//! A recording is a directory of JSON files, one for each call, readable by their owner
//! only. They hold what was asked and answered, so they are as confidential as the
//! conversation; they hold no credential, because headers of requests are not kept.

mod canonical;
mod recording;
mod replay;
mod tape;

use std::path::PathBuf;

pub use recording::RecordingProvider;
pub use replay::ReplayProvider;

/// Why a directory of recordings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recordings, {}: {cause}", path.display())]
pub struct RecordingError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong.
    pub cause: String,
}

impl RecordingError {
    fn new(path: impl Into<PathBuf>, cause: impl ToString) -> Self {
        Self {
            path: path.into(),
            cause: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
