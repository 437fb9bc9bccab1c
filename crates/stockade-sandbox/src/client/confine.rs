//! Having the Guest confine itself.

use stockade_guest_proto::ToGuest;
use stockade_ports::sandbox::SandboxError;
use tokio::sync::oneshot;

use super::{Client, Forget, fits, table::Pending};

impl Client {
    /// Has the Guest give up every privilege and install the filters
    /// ([`crate::filter::words`]) on itself and so on everything it starts. For backends on
    /// which no launcher of ours has done that.
    pub(crate) async fn confine(&self, filters: Vec<Vec<u64>>) -> Result<(), SandboxError> {
        let id = self.next_id();
        let (done, result) = oneshot::channel();
        let message = ToGuest::Confine { id, filters };
        if !fits(&message) {
            return Err(SandboxError::Invalid("system call filters of over 1 MiB".to_owned()));
        }
        self.shared.table.insert(id, Pending::Confine { done })?;
        let _forget = Forget { client: self, id };
        self.send(&message);
        let gone = || Err(SandboxError::Gone("it ended while it confined itself".to_owned()));
        result.await.unwrap_or_else(|_| gone())
    }
}
