//! A container's standard output as bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bollard::{container::LogOutput, errors::Error};
use bytes::{Buf as _, Bytes};
use futures::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// What the daemon's answer to an attach is made of.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Reads what a container prints, without what it complains.
///
/// Holds one piece at a time (the daemon sends 32 KiB at most): while nobody reads, the
/// daemon's connection fills up, then its pipe, and the Guest waits.
pub(super) struct Printed {
    pieces: Pieces,
    rest: Bytes,
}

impl Printed {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            rest: Bytes::new(),
        }
    }
}

impl AsyncRead for Printed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.pieces.as_mut().poll_next(context)) {
                Some(Ok(LogOutput::StdOut { message })) => self.rest = message,
                Some(Ok(LogOutput::StdErr { .. } | LogOutput::StdIn { .. })) => {}
                // The stream was not in the format of a container without a terminal.
                Some(Ok(LogOutput::Console { .. })) => {
                    return Poll::Ready(Err(io::Error::other(
                        "the Docker daemon sent an unknown kind of output",
                    )));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::StreamExt as _;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn out(text: &'static str) -> Result<LogOutput, Error> {
        Ok(LogOutput::StdOut { message: text.into() })
    }

    fn printed(pieces: Vec<Result<LogOutput, Error>>) -> Printed {
        Printed::new(futures::stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn only_what_was_printed_is_read_and_in_order() {
        let complaint = Ok(LogOutput::StdErr { message: "no".into() });
        let mut printed = printed(vec![out("one "), complaint, out(""), out("two")]);
        let mut text = String::new();
        printed.read_to_string(&mut text).await.expect("reads");
        assert_eq!(text, "one two");
    }

    #[tokio::test]
    async fn an_error_and_an_unknown_kind_end_it() {
        let strange = Ok(LogOutput::Console { message: "?".into() });
        for last in [strange, Err(Error::RequestTimeoutError)] {
            let mut printed = printed(vec![out("x"), last]);
            let mut text = String::new();
            assert!(printed.read_to_string(&mut text).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_writer() {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = futures::stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            out("0123456789")
        });
        let mut printed = Printed::new(pieces.boxed());
        let mut few = [0; 25];
        printed.read_exact(&mut few).await.expect("reads");
        assert_eq!(&few, b"0123456789012345678901234");
        assert_eq!(taken.load(Ordering::Relaxed), 3);
    }
}
