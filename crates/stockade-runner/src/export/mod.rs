//! Brings the change out of the sandbox.
//!
//! What comes out of the sandbox is a patch and nothing else, and it is not believed: on
//! the host it is applied to the pristine base, in an index without a working tree, by a
//! git that refuses paths outside the repository. Everything a person later sees or
//! applies is computed from the result of that: the patch, the list of files, the commit. The
//! environment's file rules see every path of it before anything is kept.

mod collect;
mod commit;

use bytes::Bytes;
use serde_json::json;
use stockade_domain::{
    Action, ActionKind, Amounts, Digest, EventType, Failure, NewEvent, Outcome, Run, RunResult, run::FileChange,
};
use stockade_gate::{Gate, Refusal, kind};
use stockade_policy::files::to_args;

use crate::{RunnerConfig, live::Live, mishap, publish::resumed, text};

pub(crate) use commit::unbundle;

/// Name of the artifact that holds the change as a patch.
pub const PATCH: &str = "patch";
/// Name of the artifact that holds the change as a git bundle with one branch.
pub const BUNDLE: &str = "bundle";
/// Most paths named in one event.
const PATHS_IN_EVENT: usize = 1000;

/// Exports; the result of a run that changed nothing has no branch.
pub(crate) async fn export(gate: &Gate, config: &RunnerConfig, run: &Run, live: &Live) -> Result<RunResult, Failure> {
    let place = live.settled()?;
    let collected = collect::collect(place.sandbox.as_ref(), &place.repo.base_commit, config.max_patch_bytes).await?;
    let base = RunResult {
        summary: live.summary(),
        base_commit: Some(place.repo.base_commit.clone()),
        ..RunResult::default()
    };
    let change = match collected.patch.is_empty() {
        true => None,
        false => commit::commit(config, run, live, place, &collected.patch, gate.clock().now()).await?,
    };
    let Some(change) = change else {
        let data = json!({ "files": [], "added": 0, "removed": 0, "notes": collected.notes });
        let event = NewEvent::new(EventType::ExportDiff, data);
        gate.record(&place.scope, vec![event])
            .await
            .map_err(|e| mishap::store(&e))?;
        return Ok(base);
    };
    let digest = Digest::of_bytes(&change.patch);
    let mut args = to_args(&change.facts);
    args["patch_digest"] = json!(digest);
    let action = Action {
        kind: ActionKind::Export,
        operation: "diff".to_owned(),
        target: counted(change.files.len()),
        args,
    };
    let admitted = gate
        .pass::<kind::Export>(&place.scope, action, Amounts::ZERO)
        .await
        .map_err(|refusal| refused(&refusal))?;
    let kept = keep(gate, run, &change).await;
    let outcome = match &kept {
        Ok(()) => Outcome::Done,
        Err(failure) => Outcome::Failed {
            error: failure.message.clone(),
        },
    };
    let details = json!({ "bytes": change.patch.len(), "commit": change.commit, "branch": change.branch });
    admitted
        .settle(outcome, Amounts::ZERO, details)
        .await
        .map_err(|e| mishap::store(&e))?;
    kept?;
    let events = told(&change, digest, &collected.notes);
    gate.record(&place.scope, events).await.map_err(|e| mishap::store(&e))?;
    let result = RunResult {
        files: change.files,
        commit: Some(change.commit),
        branch: Some(change.branch),
        patch_digest: Some(digest),
        ..base
    };
    resumed::keep(gate, run, &result, &change.facts).await?;
    live.keep_facts(change.facts);
    Ok(result)
}

/// An export that may not be is the end of the run; nothing of it was kept.
fn refused(refusal: &Refusal) -> Failure {
    let failure = mishap::refusal(refusal);
    match refusal {
        Refusal::Denied { record } if record.rule.starts_with("env.files.") => failure.with_hint(
            "the file rules of the environment decide this ('stockade env show NAME', key 'files'); \
             ask for a change without these files, or change the rules",
        ),
        _ => failure,
    }
}

async fn keep(gate: &Gate, run: &Run, change: &commit::Change) -> Result<(), Failure> {
    for (name, content) in [(PATCH, &change.patch), (BUNDLE, &change.bundle)] {
        gate.store()
            .put_artifact(run.id, name, Bytes::clone(content))
            .await
            .map_err(|e| mishap::store(&e))?;
    }
    Ok(())
}

fn told(change: &commit::Change, digest: Digest, notes: &[String]) -> Vec<NewEvent> {
    let sum = |lines: fn(&FileChange) -> Option<u64>| change.files.iter().filter_map(lines).sum::<u64>();
    let mut left = text::EVENT_TEXT;
    let shown: Vec<&FileChange> = change
        .files
        .iter()
        .take(PATHS_IN_EVENT)
        .take_while(|file| {
            let room = left >= file.path.len();
            left = left.saturating_sub(file.path.len());
            room
        })
        .collect();
    let mut data = json!({
        "files": shown, "file_count": change.files.len(), "added": sum(|f| f.added), "removed": sum(|f| f.removed),
        "digest": digest, "notes": notes,
    });
    if shown.len() < change.files.len() {
        data["truncated"] = json!(true);
    }
    vec![
        NewEvent::new(EventType::ExportDiff, data),
        NewEvent::new(
            EventType::ExportBranch,
            json!({ "branch": change.branch, "commit": change.commit }),
        ),
    ]
}

fn counted(files: usize) -> String {
    if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    }
}
