//! Asking the Guest what a command could do.

use stockade_guest_proto::{Observed, ProbeStart, ToGuest};
use stockade_ports::sandbox::{ProbePlan, SandboxError};
use tokio::sync::oneshot;

use super::{Client, Forget, table::Pending};

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
}
