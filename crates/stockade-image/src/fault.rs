//! Why something did not work, before it is known on whose behalf.

use std::io;

use stockade_archive::ArchiveError;
use stockade_ports::ImageError;

/// [`ImageError`] without the reference: several callers may share one failed pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Reference(String),
    Refused(String),
    Unavailable(String),
    Unsafe(String),
    Store(String),
}

impl Fault {
    pub(crate) fn about(self, reference: &str) -> ImageError {
        let reference = reference.to_owned();
        match self {
            Self::Reference(why) => ImageError::Reference { reference, why },
            Self::Refused(why) => ImageError::Refused { reference, why },
            Self::Unavailable(why) => ImageError::Unavailable { reference, why },
            Self::Unsafe(why) => ImageError::Unsafe { reference, why },
            Self::Store(why) => ImageError::Store(why),
        }
    }

    /// The same with where it happened in front.
    pub(crate) fn within(self, place: &str) -> Self {
        let at = |why: String| format!("{place}: {why}");
        match self {
            Self::Reference(why) => Self::Reference(at(why)),
            Self::Refused(why) => Self::Refused(at(why)),
            Self::Unavailable(why) => Self::Unavailable(at(why)),
            Self::Unsafe(why) => Self::Unsafe(at(why)),
            Self::Store(why) => Self::Store(at(why)),
        }
    }
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::System { .. } => Self::Store(error.to_string()),
            // What does not decode is not what the digest promised to be of use.
            _ => Self::Unsafe(error.to_string()),
        }
    }
}

/// Names what failed on this host's disk.
pub(crate) trait OnDisk<T> {
    fn disk(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> OnDisk<T> for Result<T, E> {
    fn disk(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|e| Fault::Store(format!("{}: {}", what(), e.into())))
    }
}
