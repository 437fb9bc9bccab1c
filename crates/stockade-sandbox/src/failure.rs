//! What went wrong while a sandbox was set up, in a form that crosses processes.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use stockade_ports::sandbox::SandboxError;

/// A failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The step, in words.
    pub(crate) step: String,
    /// The system's reason.
    pub(crate) cause: String,
    /// Set when the host as a whole cannot do this: what to change about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Failure {
    pub(crate) fn new(step: impl Into<String>, cause: impl Display) -> Self {
        Self {
            step: step.into(),
            cause: cause.to_string(),
            fix: None,
        }
    }

    /// Marks the failure as a property of the host, with the remedy.
    #[must_use]
    pub(crate) fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The port's error for it.
    pub(crate) fn into_error(self) -> SandboxError {
        self.into_error_of(crate::BACKEND)
    }

    /// The same for a backend of another name.
    pub(crate) fn into_error_of(self, backend: &'static str) -> SandboxError {
        match self.fix {
            Some(fix) => SandboxError::Unsupported {
                backend,
                what: format!("{}: {}", self.step, self.cause),
                fix,
            },
            None => SandboxError::Setup {
                step: self.step,
                cause: self.cause,
            },
        }
    }
}

/// Names the step a result belongs to.
pub(crate) trait Step<T> {
    /// Turns the error into a [`Failure`] of this step.
    fn step(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(step, e))
    }
}
