//! Failure classes: what may be tried again, what must stop at once.

use serde::{Deserialize, Serialize};

/// How a failure is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// May pass by itself: tried again with bounded backoff.
    Transient,
    /// Will not pass by itself: stops at once.
    Terminal,
    /// Nobody knows what happened: stops, shown as such, never silently repeated.
    Unknown,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How it is treated.
    pub class: FailureClass,
    /// A stable code in snake case, for example `unauthorized`, `disk_full`, `wall_clock`.
    pub code: String,
    /// What went wrong and where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that may pass by itself.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Transient,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// A failure that will not pass by itself.
    pub fn terminal(code: &str, message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Terminal,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// A failure of which nobody knows what it left behind.
    pub fn unknown(code: &str, message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Unknown,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether another attempt may be made.
    pub fn may_retry(&self) -> bool {
        self.class == FailureClass::Transient
    }
}

/// Classes an HTTP status of an upstream (RFC 9110; 529 is Anthropic's "overloaded").
pub fn class_of_status(status: u16) -> FailureClass {
    match status {
        408 | 425 | 429 | 500 | 502 | 503 | 504 | 529 => FailureClass::Transient,
        400..=499 => FailureClass::Terminal,
        _ => FailureClass::Unknown,
    }
}

/// Classes an operating-system error.
pub fn class_of_io(kind: std::io::ErrorKind) -> FailureClass {
    use std::io::ErrorKind as K;
    match kind {
        K::Interrupted
        | K::WouldBlock
        | K::TimedOut
        | K::ConnectionRefused
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::BrokenPipe
        | K::NetworkUnreachable
        | K::HostUnreachable => FailureClass::Transient,
        K::StorageFull
        | K::QuotaExceeded
        | K::PermissionDenied
        | K::NotFound
        | K::ReadOnlyFilesystem
        | K::InvalidInput
        | K::AlreadyExists => FailureClass::Terminal,
        _ => FailureClass::Unknown,
    }
}

/// Milliseconds to wait before attempt `attempt` (from 1): doubling from 500, at most 30 000.
pub fn backoff_ms(attempt: u32) -> u64 {
    500u64
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(30_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unauthorized_and_disk_full_stop_at_once_and_overload_is_tried_again() {
        assert_eq!(class_of_status(401), FailureClass::Terminal);
        assert_eq!(class_of_status(403), FailureClass::Terminal);
        assert_eq!(class_of_status(529), FailureClass::Transient);
        assert_eq!(class_of_status(200), FailureClass::Unknown);
        assert_eq!(class_of_io(std::io::ErrorKind::StorageFull), FailureClass::Terminal);
        assert_eq!(
            class_of_io(std::io::ErrorKind::ConnectionReset),
            FailureClass::Transient
        );
    }

    #[test]
    fn backoff_is_bounded() {
        assert_eq!(backoff_ms(1), 500);
        assert_eq!(backoff_ms(2), 1000);
        assert_eq!(backoff_ms(u32::MAX), 30_000);
    }
}
