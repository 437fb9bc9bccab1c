//! Errors that `main` treats in their own way.

use std::fmt;

/// A dependency is missing and could not be installed. Exit code 5, as in the product's contract.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Something failed, and all of it has been said: the summary stays the last line.
#[derive(Debug)]
pub(crate) struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed, as reported above")
    }
}

impl std::error::Error for Reported {}

/// 5 for a missing dependency anywhere in the chain, else 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Unavailable>()) {
        5
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_missing_dependency_is_told_apart_below_any_context() {
        let missing: anyhow::Result<()> = Err(Unavailable("npm".into()).into());
        assert_eq!(exit_code(&missing.context("setup").unwrap_err()), 5);
        assert_eq!(exit_code(&anyhow::anyhow!("a test failed")), 1);
    }
}
