//! Bus adapters: how one part of Stockade hints to another that something may have changed.
//!
//! [`InProcessBus`] serves one process. A hint is never the truth: whoever listens reads
//! the store again, so a lost, late or doubled hint costs time and nothing else.

#![forbid(unsafe_code)]

use async_trait::async_trait;
use stockade_ports::{Bus, Topic};
use tokio::sync::broadcast;

/// Hints a listener may fall behind before it loses the oldest.
const CAPACITY: usize = 1024;

/// Carries hints within one process.
#[derive(Debug, Clone)]
pub struct InProcessBus {
    sender: broadcast::Sender<Topic>,
}

impl Default for InProcessBus {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl InProcessBus {
    /// A bus whose listeners may fall so many hints behind (at least 1) before they lose some.
    pub fn with_capacity(capacity: usize) -> Self {
        let (sender, _) = broadcast::channel(capacity.max(1));
        Self { sender }
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn publish(&self, topic: Topic) {
        // The only error is that nobody listens, which is nobody's problem.
        let _ = self.sender.send(topic);
    }

    fn subscribe(&self) -> broadcast::Receiver<Topic> {
        self.sender.subscribe()
    }
}
