//! What people say to a run while it works.

use std::{sync::Arc, time::Duration};

use stockade_domain::{Failure, RunId};
use stockade_ports::{Message, Store};

use crate::mishap;

/// How soon somebody who interrupts is heard while a tool runs.
const LOOK: Duration = Duration::from_millis(500);

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

    /// Resolves once somebody interrupts. A store that does not answer interrupts nothing.
    pub(crate) async fn steered(&self) {
        loop {
            if self.is_steered().await.unwrap_or(false) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn peek(&self) -> Result<Vec<Message>, Failure> {
        self.store
            .messages(self.run, self.seen)
            .await
            .map_err(|e| mishap::store(&e))
    }
}
