//! What can go wrong for a client.

use crate::{Problem, ProblemCode};

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client was set up wrongly; nothing was sent.
    #[error("{0}")]
    Config(String),
    /// The gateway could not be reached, or went away while answering. Whether the request
    /// took effect is unknown; repeat it with the same idempotency key.
    #[error("cannot reach {url}: {cause}; is it running ('stockade up')?")]
    Unreachable {
        /// Where the gateway should be.
        url: String,
        /// What the network said, innermost last.
        cause: String,
    },
    /// The gateway refused, and said why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Something answered that does not speak this contract.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The problem's code, where the gateway refused with one.
    pub fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Problem(problem) => problem.code(),
            _ => None,
        }
    }

    pub(crate) fn unreachable(base: &url::Url, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if !cause.contains(&text) {
                cause.push(text);
            }
            next = error.source();
        }
        Self::Unreachable {
            url: base.as_str().trim_end_matches('/').to_owned(),
            cause: cause.join(": "),
        }
    }
}
