//! Keeps the sandbox's writable layer, where a run asks for that.

use serde_json::json;
use stockade_domain::{Action, ActionKind, Amounts, EventType, Failure, NewEvent, Outcome, Run};
use stockade_gate::{Gate, kind};

use crate::{RunnerConfig, backend::snapshots_dir, live::Live, mishap};

/// Takes the snapshot; like everything that leaves a sandbox it is an action the gate admits.
pub(crate) async fn snapshot(gate: &Gate, config: &RunnerConfig, run: &Run, live: &Live) -> Result<(), Failure> {
    if !run.spec.snapshot.keep {
        return Ok(());
    }
    let place = live.settled()?;
    let action = Action {
        kind: ActionKind::Export,
        operation: "snapshot".to_owned(),
        target: "the sandbox's writable layer".to_owned(),
        args: json!({ "image": place.sandbox.evidence().image }),
    };
    let admitted = gate.pass::<kind::Export>(&place.scope, action, Amounts::ZERO).await;
    let admitted = admitted.map_err(|refusal| mishap::refusal(&refusal))?;
    let dir = snapshots_dir(&config.state_dir);
    let made = tokio::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .await;
    let kept = match made {
        Ok(()) => place.sandbox.snapshot(&dir).await.map_err(mishap::sandbox),
        Err(e) => Err(mishap::io("making the directory for snapshots", &e)),
    };
    let outcome = match &kept {
        Ok(_) => Outcome::Done,
        Err(failure) => Outcome::Failed {
            error: failure.message.clone(),
        },
    };
    let details = kept
        .as_ref()
        .ok()
        .map(|kept| json!({ "digest": kept.digest, "bytes": kept.bytes }));
    let details = details.unwrap_or_else(|| json!({}));
    admitted
        .settle(outcome, Amounts::ZERO, details.clone())
        .await
        .map_err(|e| mishap::store(&e))?;
    kept?;
    let event = NewEvent::new(EventType::SandboxSnapshot, details);
    gate.record(&place.scope, vec![event])
        .await
        .map_err(|e| mishap::store(&e))
}
