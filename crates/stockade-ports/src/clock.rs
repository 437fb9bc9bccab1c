//! The clock port: time and fresh identifiers, so that a simulation can own both.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use stockade_domain::Timestamp;
use uuid::Uuid;

/// Tells the time and makes identifiers.
pub trait Clock: Send + Sync {
    /// Now, in whole milliseconds so that it survives every store unchanged.
    fn now(&self) -> Timestamp;

    /// A fresh UUID, ordered by time (version 7, RFC 9562).
    fn uuid(&self) -> Uuid;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// A clock that moves only when told, with predictable identifiers.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicI64,
    next: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at so many milliseconds after 1970.
    pub fn at(millis: i64) -> Self {
        Self {
            millis: AtomicI64::new(millis),
            next: AtomicU64::new(1),
        }
    }

    /// Moves time on.
    pub fn advance_ms(&self, millis: i64) {
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.millis.load(Ordering::SeqCst)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.next.fetch_add(1, Ordering::SeqCst)))
    }
}
