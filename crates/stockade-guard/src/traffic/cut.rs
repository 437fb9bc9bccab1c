//! Ending a connection from outside, at once: after [`Cut::cut`] not a byte goes through it.

use std::{io, sync::OnceLock, task::Context};

use futures::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

use super::ledger::Spent;
use crate::session::Denial;

/// Why a connection was ended from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Severed {
    /// As settlements say it: `limit`, `revoked`, `sandbox ended`.
    pub(crate) ended: &'static str,
    /// What is written down and told; nothing where the end of the sandbox says it all.
    pub(crate) denial: Option<Denial>,
}

impl Severed {
    pub(crate) fn limit(spent: &Spent) -> Self {
        Self {
            ended: "limit",
            denial: Some(Denial::from(spent)),
        }
    }

    pub(crate) fn revoked(denial: Denial) -> Self {
        Self {
            ended: "revoked",
            denial: Some(denial),
        }
    }

    pub(crate) fn sandbox_ended() -> Self {
        Self {
            ended: "sandbox ended",
            denial: None,
        }
    }
}

/// Whether and why a connection is ended, for everybody who carries its bytes.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    why: OnceLock<Severed>,
    token: CancellationToken,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    /// Ends the connection; the first reason stays.
    pub(crate) fn cut(&self, why: Severed) {
        if self.why.set(why).is_ok() {
            self.token.cancel();
            self.reader.wake();
            self.writer.wake();
        }
    }

    /// Why it is ended, if it is.
    pub(crate) fn why(&self) -> Option<&Severed> {
        self.why.get()
    }

    /// Resolves when it is ended.
    pub(crate) async fn happened(&self) {
        self.token.cancelled().await;
    }

    /// Fails when it is ended, and else wakes the reader when it will be.
    pub(super) fn check_read(&self, cx: &Context<'_>) -> io::Result<()> {
        self.reader.register(cx.waker());
        self.check()
    }

    /// The same for the writer.
    pub(super) fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        self.writer.register(cx.waker());
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        match self.why() {
            None => Ok(()),
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.ended)),
        }
    }
}
