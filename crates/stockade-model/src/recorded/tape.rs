//! One recorded call, as a file.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stockade_domain::{Digest, Wire};

use super::RecordingError;

/// Headers of an answer that are kept: none that could hold a secret.
const KEPT: &[&str] = &["content-type", "retry-after", "request-id", "x-request-id"];
/// The version of the file format.
const VERSION: u32 = 1;

/// A recorded call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tape {
    version: u32,
    /// Name of the provider that answered.
    pub(super) provider: String,
    pub(super) wire: Wire,
    /// Digest of the canonical request.
    pub(super) digest: Digest,
    /// The canonical request, for people and for naming differences.
    pub(super) request: Value,
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    /// The body, in the pieces it came in.
    pub(super) chunks: Vec<Chunk>,
    /// Whether the body came to its end.
    pub(super) complete: bool,
}

/// A piece of a body; a piece that cuts a character in two is not text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Chunk {
    Text(String),
    Bytes { base64: String },
}

impl Chunk {
    pub(super) fn of(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    fn bytes(&self) -> Result<Bytes, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Bytes { base64 } => STANDARD.decode(base64).map(Bytes::from),
        }
    }
}

impl Tape {
    /// A recording that waits for its answer.
    pub(super) fn of_request(provider: &str, wire: Wire, digest: Digest, request: Value) -> Self {
        Self {
            version: VERSION,
            provider: provider.to_owned(),
            wire,
            digest,
            request,
            status: 0,
            headers: BTreeMap::new(),
            chunks: Vec::new(),
            complete: false,
        }
    }

    pub(super) fn keep_headers(&mut self, headers: &HeaderMap) {
        let kept = KEPT.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        self.headers = kept.collect();
    }

    pub(super) fn answer_headers(&self) -> HeaderMap {
        let pairs = self.headers.iter().filter(|(name, _)| KEPT.contains(&name.as_str()));
        pairs
            .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)))
            .collect()
    }

    pub(super) fn body(&self) -> Result<Vec<Bytes>, base64::DecodeError> {
        self.chunks.iter().map(Chunk::bytes).collect()
    }

    /// Writes it under the first free number from `number` on; its owner alone may read it.
    pub(super) fn write(&self, dir: &Path, mut number: u64) -> Result<(), RecordingError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| RecordingError::new(dir, e))?;
        text.push(b'\n');
        loop {
            let path = dir.join(format!("{number:05}-{}.json", &self.digest.hex()[..12]));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => return file.write_all(&text).map_err(|e| RecordingError::new(path, e)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(RecordingError::new(path, error)),
            }
        }
    }

    fn read(path: &Path) -> Result<Self, RecordingError> {
        let wrong = |cause: &dyn ToString| RecordingError::new(path, cause.to_string());
        let text = fs::read(path).map_err(|e| wrong(&e))?;
        let tape: Self = serde_json::from_slice(&text).map_err(|e| wrong(&e))?;
        if tape.version != VERSION {
            return Err(wrong(&format!(
                "version {} is not known; record it again",
                tape.version
            )));
        }
        http::StatusCode::from_u16(tape.status).map_err(|e| wrong(&e))?;
        tape.body().map_err(|e| wrong(&e))?;
        Ok(tape)
    }
}

/// Every recording of a directory, in the order they were made.
pub(super) fn read_all(dir: &Path) -> Result<Vec<(String, Tape)>, RecordingError> {
    let mut tapes = Vec::new();
    for path in paths(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tapes.push((name, Tape::read(&path)?));
    }
    Ok(tapes)
}

/// The files of a directory that look like recordings, in the order they were made.
pub(super) fn paths(dir: &Path) -> Result<Vec<PathBuf>, RecordingError> {
    let entries = fs::read_dir(dir).map_err(|e| RecordingError::new(dir, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| RecordingError::new(dir, e))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
