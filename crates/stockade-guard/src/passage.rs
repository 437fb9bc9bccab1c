//! Asking the gate on behalf of a client that may go away.

use serde_json::json;
use stockade_domain::{Action, Amounts, Outcome};
use stockade_gate::{Admitted, Gate, Scope, kind::Kind};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::session::{Denial, settle};

/// The way from a session to its gate.
#[derive(Clone)]
pub(crate) struct Passage {
    pub(crate) gate: Gate,
    pub(crate) scope: Scope,
    /// The session's tasks, which it waits for when it is closed.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the session ends.
    pub(crate) stop: CancellationToken,
}

impl Passage {
    /// Asks, waiting for a person where one must decide, in a task of its own: a client that goes
    /// away must not interrupt the transaction that admits its action. Dropping the future gives
    /// up; what was admitted by then is settled.
    pub(crate) async fn pass<K: Kind>(&self, action: Action) -> Result<Admitted<K>, Denial> {
        let (mut tell, told) = oneshot::channel();
        let Self {
            gate,
            scope,
            tasks,
            stop,
        } = self.clone();
        tasks.clone().spawn(async move {
            let passed = tokio::select! {
                passed = gate.pass::<K>(&scope, action, Amounts::ZERO) => passed,
                () = tell.closed() => return,
                () = stop.cancelled() => return,
            };
            let passed = passed.map_err(|refusal| Denial::from(&refusal));
            if let Err(Ok(admitted)) = tell.send(passed) {
                let error = "the client went away".to_owned();
                settle(admitted, Outcome::Failed { error }, json!({})).await;
            }
        });
        told.await.unwrap_or_else(|_| {
            Err(Denial {
                rule: "stockade.gone".to_owned(),
                reason: "the sandbox ended before a person decided".to_owned(),
            })
        })
    }
}
