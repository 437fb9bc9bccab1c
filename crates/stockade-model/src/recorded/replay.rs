//! A provider that says again what was recorded.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::Value;
use stockade_domain::{Digest, FailureClass, Wire, canonical_json};
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse};

use super::{
    RecordingError, canonical,
    tape::{self, Tape},
};

/// Answers with what was recorded for the same request.
///
/// A request that was recorded several times gets those answers in their order, then the
/// last one again. Answers that had broken off are used only where there is no other.
#[derive(Debug)]
pub struct ReplayProvider {
    tapes: Vec<(String, Tape)>,
    wires: Vec<Wire>,
    by_digest: HashMap<Digest, Vec<usize>>,
    given: Mutex<HashMap<Digest, usize>>,
}

impl ReplayProvider {
    /// Reads every recording of a directory.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] when a file cannot be read or is no recording, or there is none.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let tapes = tape::read_all(dir.as_ref())?;
        if tapes.is_empty() {
            return Err(RecordingError::new(
                dir.as_ref(),
                "there is no recording; record a run first",
            ));
        }
        let mut wires = Vec::new();
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (place, (_, tape)) in tapes.iter().enumerate() {
            if !wires.contains(&tape.wire) {
                wires.push(tape.wire);
            }
            by_digest.entry(tape.digest).or_default().push(place);
        }
        for places in by_digest.values_mut() {
            if places.iter().any(|place| tapes[*place].1.complete) {
                places.retain(|place| tapes[*place].1.complete);
            }
        }
        Ok(Self {
            tapes,
            wires,
            by_digest,
            given: Mutex::default(),
        })
    }

    fn next(&self, digest: Digest) -> Option<&Tape> {
        let places = self.by_digest.get(&digest)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let count = given.entry(digest).or_default();
        let place = places.get(*count).or(places.last())?;
        *count += 1;
        Some(&self.tapes[*place].1)
    }

    /// What to say about a request that was not recorded.
    fn missing(&self, wire: Wire, request: &Value, digest: Digest) -> ModelError {
        let digest = &digest.hex()[..12];
        let same_wire = self.tapes.iter().filter(|(_, tape)| tape.wire == wire);
        let bytes = canonical_json(request);
        let nearest = same_wire.max_by_key(|(_, tape)| common(&bytes, &canonical_json(&tape.request)));
        let hint = match nearest {
            Some((name, tape)) => {
                let place = canonical::first_difference(&tape.request, request).unwrap_or_default();
                let place = if place.is_empty() { "/".to_owned() } else { place };
                format!("the nearest, {name}, differs at {place}")
            }
            None => "nothing was recorded in this wire".to_owned(),
        };
        ModelError {
            provider: self.name().to_owned(),
            message: format!(
                "no recording for this {} request ({digest}): {hint}; record it again",
                wire.as_str()
            ),
            class: FailureClass::Terminal,
        }
    }
}

/// Bytes two texts have in common from their beginning.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[async_trait]
impl ModelProvider for ReplayProvider {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn wires(&self) -> &[Wire] {
        &self.wires
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let canonical = canonical::request(&request.body);
        let digest = canonical::digest(request.wire, &canonical);
        let tape = self
            .next(digest)
            .ok_or_else(|| self.missing(request.wire, &canonical, digest))?;
        let damaged = |cause: String| ModelError {
            provider: self.name().to_owned(),
            message: cause,
            class: FailureClass::Terminal,
        };
        let status = StatusCode::from_u16(tape.status).map_err(|e| damaged(e.to_string()))?;
        let body = tape.body().map_err(|e| damaged(e.to_string()))?;
        Ok(ModelResponse {
            status,
            headers: tape.answer_headers(),
            body: stream::iter(body.into_iter().map(Ok)).boxed(),
        })
    }
}
