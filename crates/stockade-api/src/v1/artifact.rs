//! Artifacts: what a run leaves behind.

use serde::{Deserialize, Serialize};
use stockade_domain::Digest;

use crate::v1::{PATCH, RECEIPT_JSON};

/// A kind of artifact every run can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactKind {
    /// Its name.
    pub name: &'static str,
    /// The media type it is served with.
    pub media_type: &'static str,
    /// What a browser would call the file.
    pub file: &'static str,
}

/// The artifacts a run can have: the change, the same change as commits, the signed receipt.
pub const ARTIFACTS: [ArtifactKind; 3] = [
    ArtifactKind {
        name: "patch",
        media_type: PATCH,
        file: "change.patch",
    },
    ArtifactKind {
        name: "bundle",
        media_type: "application/octet-stream",
        file: "change.bundle",
    },
    ArtifactKind {
        name: "receipt",
        media_type: RECEIPT_JSON,
        file: "receipt.dsse.json",
    },
];

/// The artifact of that name.
pub fn artifact_kind(name: &str) -> Option<&'static ArtifactKind> {
    ARTIFACTS.iter().find(|kind| kind.name == name)
}

/// An artifact a run has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// The media type it is served with.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}
