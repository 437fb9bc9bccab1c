//! Writes of files by Stockade's own tools, as the environment's file rules see them.
//!
//! A write is judged twice. First as it is asked for. Then, when it may happen, as it would
//! happen: where links lead, how much an edit comes to, what a person made of it. What refuses the second time is an
//! action of its own that the gate denies, so that it is written down like any other. A
//! program inside can still change a link between the look and the write; what that plants
//! ends with the sandbox, because the export is judged again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};
use stockade_domain::{Action, ActionKind, Amounts};
use stockade_gate::{Gate, Refusal, Scope, kind};
use stockade_policy::files::Place;
use stockade_ports::{
    SandboxError, SandboxHandle,
    sandbox::{EntryKind, WORKSPACE},
};

/// Most links followed on the way to one file (as Linux does).
const MOST_LINKS: u32 = 40;

/// Why a tool did not do what it was let do.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The sandbox could not.
    Sandbox(SandboxError),
    /// Looked at closely, it was something that may not be.
    Refused(Refusal),
}

impl From<SandboxError> for Trouble {
    fn from(error: SandboxError) -> Self {
        Self::Sandbox(error)
    }
}

/// Writes files for tools, and counts.
#[derive(Clone)]
pub(crate) struct Writes {
    gate: Gate,
    scope: Scope,
    /// Last size of every file written so far, in bytes.
    sizes: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// One write.
pub(crate) struct Write<'a> {
    /// The tool's name.
    pub(crate) operation: &'a str,
    /// Where to, as it was admitted.
    pub(crate) path: &'a str,
    /// What.
    pub(crate) content: Bytes,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Writes {
    pub(crate) fn new(gate: &Gate, scope: &Scope) -> Self {
        Self {
            gate: gate.clone(),
            scope: scope.clone(),
            sizes: Arc::default(),
        }
    }

    /// The action to ask for: with what the run will have written where that passes a limit,
    /// and otherwise as it was, so that equal actions stay equal.
    pub(crate) fn counted(&self, mut action: Action) -> Action {
        let sizes = (action.args["path"].as_str(), action.args["content"].as_str());
        if let (Some(path), Some(content)) = sizes {
            let (files, bytes) = self.with(path, content.len() as u64);
            if self.scope.policy().files().exceeds(files, bytes) {
                action.args["written"] = json!({ "files": files, "bytes": bytes });
            }
        }
        action
    }

    /// Asks the gate about a write that the file rules forbid, and only then.
    async fn check(&self, action: Action) -> Result<(), Trouble> {
        if self.scope.policy().files().judge_write(&action).is_none() {
            return Ok(());
        }
        match self.gate.admit::<kind::Tool>(&self.scope, action, Amounts::ZERO).await {
            Err(refusal) => Err(Trouble::Refused(refusal)),
            // The gate asks the same rules, so this is never reached; what is left is a no.
            Ok(_) => Err(SandboxError::Invalid("the file rules refuse this write".to_owned()).into()),
        }
    }

    /// Writes a file where the rules let it land; gives the path it was written to.
    pub(crate) async fn put(&self, sandbox: &dyn SandboxHandle, write: Write<'_>) -> Result<Place, Trouble> {
        let asked = Place::of(write.path).map_err(SandboxError::Invalid)?;
        let bytes = write.content.len() as u64;
        let mut place = asked.clone();
        if self.scope.policy().files().looks_at_writes() {
            place = follow(sandbox, &asked, false).await?;
            let lands = follow(sandbox, &place, true).await?;
            for real in [&place, &lands] {
                self.check(self.closer(&write, real, &asked, bytes)).await?;
            }
        } else {
            self.check(self.closer(&write, &place, &asked, bytes)).await?;
        }
        sandbox.write_file(&place.absolute(), write.content, write.mode).await?;
        self.lock().insert(place.as_str().to_owned(), bytes);
        Ok(place)
    }

    /// The write as it would happen.
    fn closer(&self, write: &Write<'_>, real: &Place, asked: &Place, bytes: u64) -> Action {
        let (files, total) = self.with(real.as_str(), bytes);
        let mut args = json!({ "path": real.as_str(), "bytes": bytes });
        if real != asked {
            args["through"] = Value::from(asked.as_str());
        }
        if self.scope.policy().files().exceeds(files, total) {
            args["written"] = json!({ "files": files, "bytes": total });
        }
        Action {
            kind: ActionKind::Tool,
            operation: write.operation.to_owned(),
            target: real.as_str().to_owned(),
            args,
        }
    }

    /// Files and bytes of the run once that file has that size. A file counts once.
    fn with(&self, path: &str, bytes: u64) -> (u64, u64) {
        let sizes = self.lock();
        let before = sizes.get(path).copied();
        let others = sizes.values().fold(0_u64, |sum, size| sum.saturating_add(*size)) - before.unwrap_or(0);
        let files = sizes.len() as u64 + u64::from(before.is_none());
        (files, others.saturating_add(bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a path leads inside the sandbox at this moment. What does not exist yet leads where
/// its letters say.
async fn follow(sandbox: &dyn SandboxHandle, path: &Place, also_last: bool) -> Result<Place, SandboxError> {
    let absolute = path.absolute();
    let mut left: VecDeque<String> = absolute.split('/').map(str::to_owned).collect();
    let mut here: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                here.pop();
                continue;
            }
            _ => here.push(name),
        }
        let so_far = format!("/{}", here.join("/"));
        if so_far == WORKSPACE || (left.is_empty() && !also_last) {
            continue;
        }
        let target = match sandbox.stat(&so_far).await {
            Ok(entry) if entry.kind == EntryKind::Link => entry.target,
            Ok(_) | Err(SandboxError::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        links += 1;
        let Some(target) = target.filter(|_| links <= MOST_LINKS) else {
            let path = path.as_str();
            return Err(SandboxError::Invalid(format!(
                "{path}: cannot tell where its links lead"
            )));
        };
        here.pop();
        if target.starts_with('/') {
            here.clear();
        }
        for part in target.split('/').rev() {
            left.push_front(part.to_owned());
        }
    }
    Place::of(&format!("/{}", here.join("/"))).map_err(SandboxError::Invalid)
}
