//! Exit codes: the one table, and errors that know their row.

use std::{fmt, process::ExitCode};

use stockade_api::{ClientError, Problem};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The run failed.
    RunFailed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Refused by policy or by a person.
    Refused = 3,
    /// An unsafe configuration was refused.
    Unsafe = 4,
    /// A dependency is unavailable.
    Unavailable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error for a person: what went wrong, what to do, and how the program ends.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Complaint {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Complaint {}

/// What a command gives back.
pub(crate) type Outcome = anyhow::Result<Exit>;

/// The row of the table for an error, and its hint.
pub(crate) fn classify(error: &anyhow::Error) -> (Exit, Option<String>) {
    if let Some(complaint) = error.downcast_ref::<Complaint>() {
        return (complaint.exit, complaint.hint.clone());
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Protocol(_)) => (Exit::Unavailable, None),
        Some(ClientError::Config(_)) => (Exit::Usage, None),
        Some(ClientError::Problem(problem)) => (exit_of_status(problem.status), problem.hint.clone()),
        None => (Exit::RunFailed, None),
    }
}

/// The words of an error, without the hint that is printed below them.
pub(crate) fn words(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Problem(problem)) => Problem {
            hint: None,
            ..(**problem).clone()
        }
        .to_string(),
        _ => format!("{error:#}"),
    }
}

fn exit_of_status(status: u16) -> Exit {
    match status {
        403 => Exit::Refused,
        500.. => Exit::Unavailable,
        _ => Exit::Usage,
    }
}
