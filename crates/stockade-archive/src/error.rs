//! Why a stream was not unpacked or a tree not packed.

use std::io;

/// Why a stream was not unpacked or a tree not packed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It would do harm, or is no archive at all.
    #[error("{0}")]
    Refused(String),
    /// The stream broke off or could not be decoded.
    #[error("the archive cannot be read: {0}")]
    Stream(io::Error),
    /// This host's file system refused.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        cause: io::Error,
    },
}

impl ArchiveError {
    /// Whether a file system was full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::System { cause, .. } = self else {
            return false;
        };
        let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
        full.iter()
            .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Names what failed.
pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> ArchiveError {
    let what = what.into();
    move |cause| ArchiveError::System {
        what,
        cause: cause.into(),
    }
}

pub(crate) fn refused(why: impl Into<String>) -> ArchiveError {
    ArchiveError::Refused(why.into())
}
