//! Asking the Guest what a command could do.

use std::time::Duration;

use stockade_guest_proto::{Observed, ProbeStart, ToGuest};
use stockade_ports::sandbox::{ProbePlan, SandboxError};
use tokio::{sync::oneshot, time::timeout};

use super::{Client, Forget, table::Pending};

/// Longest a Guest may take to look at its disk: a paused one never answers.
const A_MOMENT: Duration = Duration::from_secs(2);

impl Client {
    /// Has the Guest try what a plan asks for, in the place of a command.
    pub(crate) async fn probe(&self, plan: &ProbePlan) -> Result<Observed, SandboxError> {
        let id = self.next_id();
        let (done, result) = oneshot::channel();
        self.shared.table.insert(id, Pending::Probe { done })?;
        let _forget = Forget { client: self, id };
        let witness = plan.witness.as_ref();
        self.send(&ToGuest::Probe(ProbeStart {
            id,
            tcp: plan.denied.clone(),
            name: plan.denied_name.clone(),
            canaries: witness.map_or_else(Vec::new, |witness| witness.addresses()),
            abstract_socket: witness.and_then(|witness| witness.abstract_socket()),
        }));
        let gone = || Err(SandboxError::Gone("it ended while it was measured".to_owned()));
        result.await.unwrap_or_else(|_| gone())
    }

    /// Whether the Guest says within a moment that the sandbox's disk is full.
    pub(crate) async fn is_full(&self) -> bool {
        let id = self.next_id();
        let (done, result) = oneshot::channel();
        if self.shared.table.insert(id, Pending::Room { done }).is_err() {
            return false;
        }
        let _forget = Forget { client: self, id };
        self.send(&ToGuest::Room { id });
        matches!(timeout(A_MOMENT, result).await, Ok(Ok(true)))
    }
}
