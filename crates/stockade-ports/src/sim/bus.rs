//! A bus that remembers what was said.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::{Bus, Topic};

/// Carries hints within the process and keeps a list of them.
#[derive(Debug)]
pub struct RecordingBus {
    sender: broadcast::Sender<Topic>,
    said: Mutex<Vec<Topic>>,
}

impl Default for RecordingBus {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(1024).0,
            said: Mutex::default(),
        }
    }
}

impl RecordingBus {
    /// Every hint so far, in order.
    pub fn said(&self) -> Vec<Topic> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Bus for RecordingBus {
    async fn publish(&self, topic: Topic) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(topic);
        // Nobody listening is no failure.
        let _ = self.sender.send(topic);
    }

    fn subscribe(&self) -> broadcast::Receiver<Topic> {
        self.sender.subscribe()
    }
}
