//! A provider that keeps what another one says.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use stockade_domain::{FailureClass, Wire};
use stockade_ports::{ModelError, ModelProvider, ModelRequest, ModelResponse};

use super::{
    RecordingError, canonical,
    tape::{self, Chunk, Tape},
};

/// Asks another provider and keeps every answer in a directory.
///
/// A call without an answer is not kept. An answer that cannot be kept fails: whoever
/// records wants the recording.
pub struct RecordingProvider {
    inner: Arc<dyn ModelProvider>,
    dir: PathBuf,
    next: AtomicU64,
}

impl RecordingProvider {
    /// Records what `inner` says into `dir`, which is made when absent.
    ///
    /// # Errors
    ///
    /// [`RecordingError`] when the directory cannot be made or read.
    pub fn new(inner: Arc<dyn ModelProvider>, dir: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let dir = dir.as_ref().to_owned();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|e| RecordingError::new(&dir, e))?;
        let next = tape::paths(&dir)?.len() as u64 + 1;
        Ok(Self {
            inner,
            dir,
            next: AtomicU64::new(next),
        })
    }
}

#[async_trait]
impl ModelProvider for RecordingProvider {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn wires(&self) -> &[Wire] {
        self.inner.wires()
    }

    async fn call(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let wire = request.wire;
        let canonical = canonical::request(&request.body);
        let digest = canonical::digest(wire, &canonical);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.inner.call(request).await?;
        let mut tape = Tape::of_request(self.inner.name(), wire, digest, canonical);
        tape.status = answer.status.as_u16();
        tape.keep_headers(&answer.headers);
        let recorder = Recorder {
            tape: Some(tape),
            dir: self.dir.clone(),
            number,
        };
        let body = stream::unfold((answer.body, recorder), |(mut body, mut recorder)| async {
            match body.next().await {
                Some(Ok(piece)) => {
                    recorder.keep(&piece);
                    Some((Ok(piece), (body, recorder)))
                }
                Some(Err(error)) => Some((Err(error), (body, recorder))),
                None => recorder.finish().err().map(|error| (Err(error), (body, recorder))),
            }
        });
        Ok(ModelResponse {
            status: answer.status,
            headers: answer.headers,
            body: body.boxed(),
        })
    }
}

/// Writes a recording when its answer ends, or when nobody reads on.
struct Recorder {
    tape: Option<Tape>,
    dir: PathBuf,
    number: u64,
}

impl Recorder {
    fn keep(&mut self, piece: &bytes::Bytes) {
        if let Some(tape) = &mut self.tape {
            tape.chunks.push(Chunk::of(piece));
        }
    }

    fn finish(&mut self) -> Result<(), ModelError> {
        let Some(mut tape) = self.tape.take() else {
            return Ok(());
        };
        tape.complete = true;
        tape.write(&self.dir, self.number).map_err(|error| ModelError {
            provider: tape.provider.clone(),
            message: error.to_string(),
            class: FailureClass::Terminal,
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(tape) = self.tape.take() else { return };
        if !tape.chunks.is_empty()
            && let Err(error) = tape.write(&self.dir, self.number)
        {
            tracing::warn!(%error, "a broken-off model call was not recorded");
        }
    }
}
