//! A change that an earlier attempt of the run has kept.
//!
//! A run that waits for a person outlives its process and starts over in a fresh sandbox. Once its
//! change was kept there is nothing left for the agent to do: another go could come to another
//! change, and what a person is asked about is this one. So what is published is what was kept.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stockade_domain::{Action, Failure, Outcome, Run, RunResult};
use stockade_gate::Gate;
use stockade_policy::files::ExportedFile;
use stockade_ports::StoreError;

use super::branch::GIT_DIR;
use crate::{
    RunnerConfig,
    export::{self, BUNDLE},
    live::Live,
    mishap,
    repo::commit_of,
};

/// Name of the artifact that holds the result of a run whose change is still to be published.
const RESULT: &str = "result";

#[derive(Serialize, Deserialize)]
struct Kept {
    result: RunResult,
    /// The files as the rules see them: an action's arguments.
    files: serde_json::Value,
}

/// Keeps a result until it is published. Kept after patch and bundle: where it is, they are.
pub(crate) async fn keep(gate: &Gate, run: &Run, result: &RunResult, facts: &[ExportedFile]) -> Result<(), Failure> {
    if run.spec.publish.is_none() {
        return Ok(());
    }
    let kept = Kept {
        result: result.clone(),
        files: stockade_policy::files::to_args(facts),
    };
    let bytes = serde_json::to_vec(&kept).map_err(|e| unreadable(&e))?;
    let put = gate.store().put_artifact(run.id, RESULT, Bytes::from(bytes)).await;
    put.map_err(|e| mishap::store(&e))
}

/// Whether an earlier attempt has kept its change.
pub(crate) async fn is_kept(gate: &Gate, run: &Run) -> Result<bool, Failure> {
    Ok(read(gate, run).await?.is_some())
}

/// The result of an earlier attempt, with its commit brought back.
pub(crate) async fn kept(
    gate: &Gate,
    config: &RunnerConfig,
    run: &Run,
    live: &Live,
) -> Result<Option<RunResult>, Failure> {
    let Some(Kept { result, files }) = read(gate, run).await? else {
        return Ok(None);
    };
    let facts = stockade_policy::files::from_args(&files);
    live.keep_facts(facts.ok_or_else(|| unreadable(&"its list of files"))?);
    let place = live.settled()?;
    let base = result.base_commit.as_deref().unwrap_or_default();
    if commit_of(config, &place.repo.base_git, base).await?.is_none() {
        let words = format!("the repository no longer has the commit {base} that the change was made on");
        return Err(Failure::terminal("repo_rewritten", words)
            .with_hint("take the change with 'stockade runs diff', or start another run of the task"));
    }
    let bundle = gate
        .store()
        .artifact(run.id, BUNDLE)
        .await
        .map_err(|e| mishap::store(&e))?;
    export::unbundle(config, &place.repo.base_git, &live.dir.join(GIT_DIR), &bundle).await?;
    Ok(Some(result))
}

async fn read(gate: &Gate, run: &Run) -> Result<Option<Kept>, Failure> {
    if run.spec.publish.is_none() {
        return Ok(None);
    }
    match gate.store().artifact(run.id, RESULT).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable(&e)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(mishap::store(&error)),
    }
}

fn unreadable(why: &dyn std::fmt::Display) -> Failure {
    Failure::unknown(
        "not_exported",
        format!("the change that was kept cannot be read back: {why}"),
    )
}

/// Whether the run has done exactly this already.
pub(super) async fn was_done(gate: &Gate, run: &Run, action: &Action) -> Result<bool, Failure> {
    let actions = gate.store().actions(run.id).await.map_err(|e| mishap::store(&e))?;
    let digest = action.digest();
    let done =
        |record: &stockade_domain::ActionRecord| record.digest == digest && record.outcome == Some(Outcome::Done);
    Ok(actions.iter().any(done))
}
