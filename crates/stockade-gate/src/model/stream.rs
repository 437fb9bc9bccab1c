//! A body that is read along.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use stockade_ports::ModelError;
use tokio::task::JoinHandle;

use super::flight::{End, Flight};

type Piece = Result<Bytes, ModelError>;

/// Passes a body on piece by piece, unchanged and at once, and settles its call before it ends.
pub(super) struct Metered {
    body: BoxStream<'static, Piece>,
    flight: Flight,
    state: State,
}

enum State {
    Reading,
    Settling {
        task: Option<JoinHandle<()>>,
        last: Option<Piece>,
    },
}

impl Metered {
    pub(super) fn new(body: BoxStream<'static, Piece>, flight: Flight) -> Self {
        Self {
            body,
            flight,
            state: State::Reading,
        }
    }

    fn settle(&mut self, end: End, last: Option<Piece>) {
        self.state = State::Settling {
            task: self.flight.close(end),
            last,
        };
    }
}

impl Stream for Metered {
    type Item = Piece;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Reading => match ready!(this.body.poll_next_unpin(context)) {
                    Some(Ok(piece)) => {
                        this.flight.piece(&piece);
                        return Poll::Ready(Some(Ok(piece)));
                    }
                    Some(Err(error)) => this.settle(End::Broken(error.message.clone()), Some(Err(error))),
                    None => this.settle(End::Body, None),
                },
                State::Settling { task, last } => {
                    if let Some(running) = task {
                        // A settlement that panicked is one that recovery finds.
                        let _ = ready!(running.poll_unpin(context));
                        *task = None;
                    }
                    return Poll::Ready(last.take());
                }
            }
        }
    }
}
