//! What people say to a run while it works.

use std::sync::Arc;

use stockade_domain::{Failure, RunId};
use stockade_ports::{Message, Store};

use crate::mishap;

/// Reads a run's messages, each once. A new driver reads them all again: its agent has heard none.
pub(crate) struct Inbox {
    store: Arc<dyn Store>,
    run: RunId,
    seen: u64,
}

impl Inbox {
    pub(crate) fn new(store: &Arc<dyn Store>, run: RunId) -> Self {
        Self {
            store: Arc::clone(store),
            run,
            seen: 0,
        }
    }

    /// Messages nobody has taken yet, oldest first.
    pub(crate) async fn take(&mut self) -> Result<Vec<Message>, Failure> {
        let messages = self.peek().await?;
        if let Some(last) = messages.last() {
            self.seen = last.seq;
        }
        Ok(messages)
    }

    /// Whether somebody interrupts.
    pub(crate) async fn is_steered(&self) -> Result<bool, Failure> {
        Ok(self.peek().await?.iter().any(|message| message.steer))
    }

    async fn peek(&self) -> Result<Vec<Message>, Failure> {
        self.store
            .messages(self.run, self.seen)
            .await
            .map_err(|e| mishap::store(&e))
    }
}
