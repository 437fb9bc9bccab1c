//! Idempotency keys: what makes two requests the same request.

use serde_json::json;
use stockade_domain::{Digest, RunId, TaskId, digest_of};

use crate::{CreateRun, CreateTask, StoreError};

/// A remembered `Idempotency-Key` of a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateKey {
    /// What was asked with it, without the ids and times that differ between two attempts.
    pub request: Digest,
    /// The task it made or was about.
    pub task: TaskId,
    /// The run it made.
    pub run: Option<RunId>,
}

impl CreateKey {
    /// Accepts the request the key was made for.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyReused`] for every other request.
    pub fn check(&self, key: &str, request: Digest) -> Result<(), StoreError> {
        if self.request == request {
            return Ok(());
        }
        Err(StoreError::KeyReused { key: key.to_owned() })
    }
}

/// What a request for a task asks for.
pub fn task_key(request: &CreateTask) -> Digest {
    let spec = request.run.as_ref().map(|run| &run.spec);
    digest_of(&json!({ "create": "task", "prompt": request.prompt, "repo": request.repo, "spec": spec }))
}

/// What a request for another run of a task asks for.
pub fn run_key(task: TaskId, run: &CreateRun) -> Digest {
    digest_of(&json!({ "create": "run", "task": task, "spec": run.spec }))
}
