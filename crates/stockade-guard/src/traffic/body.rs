//! The content of requests and answers, counted towards the rules that let the requests out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use stockade_ports::InternalBody;

use super::ledger::{Reserved, Spent, Tab, Way, reserve, settle};
use crate::session::Denial;

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.reason)]
pub(crate) struct Ended(pub(crate) Denial);

/// Told once, when a body is ended.
pub(crate) type Tell = Box<dyn FnOnce(&Denial) + Send>;

/// A body that passes as far as the limits go.
pub(crate) struct CountedBody {
    inner: InternalBody,
    tabs: Vec<Arc<Tab>>,
    way: Way,
    /// Bytes that may still come, where a rule limits one request.
    left: Option<(u64, Denial)>,
    tell: Option<Tell>,
    /// What was received and has no room yet.
    waiting: Option<Bytes>,
}

impl CountedBody {
    pub(crate) fn new(inner: InternalBody, tabs: Vec<Arc<Tab>>, way: Way, tell: Tell) -> Self {
        Self {
            inner,
            tabs,
            way,
            left: None,
            tell: Some(tell),
            waiting: None,
        }
    }

    /// Ends with this denial after so many bytes, also where the request did not say how long it is.
    pub(crate) fn at_most(self, bytes: u64, denial: Denial) -> Self {
        Self {
            left: Some((bytes, denial)),
            ..self
        }
    }

    fn end(&mut self, denial: Denial) -> Box<dyn std::error::Error + Send + Sync> {
        if let Some(tell) = self.tell.take() {
            tell(&denial);
        }
        Box::new(Ended(denial))
    }

    /// Passes a piece, or as much of it as there is room for.
    fn pass(&mut self, mut data: Bytes, cx: &Context<'_>) -> Poll<Result<Bytes, Spent>> {
        if data.is_empty() {
            return Poll::Ready(Ok(data));
        }
        match reserve(&self.tabs, self.way, data.len()) {
            Reserved::Bytes(most) => {
                let rest = data.split_off(most);
                self.waiting = (!rest.is_empty()).then_some(rest);
                settle(&self.tabs, self.way, most, most);
                Poll::Ready(Ok(data))
            }
            Reserved::Held => {
                self.waiting = Some(data);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Reserved::Spent(spent) => Poll::Ready(Err(spent)),
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>>;

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let data = match this.waiting.take() {
            Some(waiting) => waiting,
            None => {
                let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => frame,
                    other => return Poll::Ready(other),
                };
                let data = match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                };
                if let Some((left, denial)) = &mut this.left {
                    match left.checked_sub(data.len() as u64) {
                        Some(less) => *left = less,
                        None => {
                            let denial = denial.clone();
                            return Poll::Ready(Some(Err(this.end(denial))));
                        }
                    }
                }
                data
            }
        };
        match ready!(this.pass(data, cx)) {
            Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Err(spent) => Poll::Ready(Some(Err(this.end(Denial::from(&spent))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.waiting {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
