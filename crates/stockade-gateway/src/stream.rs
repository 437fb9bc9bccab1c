//! One reader's event stream: pages from the store, as fast as the reader takes them.
//!
//! Nothing is queued per connection but the page in hand, so a slow reader costs one page
//! of memory and cannot be overrun. The bus only says when looking again is worth it; a
//! lost hint costs one poll interval.

use std::{convert::Infallible, fmt::Write as _};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::json;
use stockade_api::v1::EVENT_STREAM;
use stockade_domain::{Event, EventType, NewEvent, RunId};
use stockade_ports::Topic;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep_until},
};

use crate::{
    App,
    auth::{Caller, working_token},
};

/// Events read from the store at a time.
const PAGE: u32 = 128;
/// Written at once before the first event: lets the client see that it is connected, and
/// tells an `EventSource` to come back after a second.
const HELLO: &str = ": connected\nretry: 1000\n\n";
const KEEPALIVE: &str = ": alive\n\n";

/// The response that tells the events of a run after a place.
pub(crate) fn respond(app: App, caller: Caller, run: RunId, after: u64) -> Response {
    let now = Instant::now();
    let tail = Tail {
        hints: app.bus.subscribe(),
        closing: app.closing(),
        keepalive_at: now + app.limits.keepalive,
        recheck_at: now + app.limits.keepalive,
        caller,
        run,
        after,
        greeted: false,
        over: false,
        app,
    };
    let chunks = futures::stream::unfold(tail, |mut tail| async move {
        let chunk = tail.next().await?;
        Some((Ok::<_, Infallible>(chunk), tail))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    // Proxies that collect answers would hold events back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

struct Tail {
    app: App,
    caller: Caller,
    run: RunId,
    after: u64,
    hints: broadcast::Receiver<Topic>,
    closing: watch::Receiver<bool>,
    keepalive_at: Instant,
    recheck_at: Instant,
    greeted: bool,
    over: bool,
}

impl Tail {
    /// The next piece of the stream; `None` ends it. Every end but the one after the
    /// terminal event looks to the client like a broken connection, and it resumes.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(HELLO.as_bytes()));
        }
        while !self.over && !*self.closing.borrow() {
            if Instant::now() >= self.recheck_at {
                self.recheck().await?;
            }
            // Hints that came before the look are answered by it.
            while self.hints.try_recv().is_ok() {}
            let page = self.app.store.events(self.run, self.after, PAGE).await.ok()?;
            if !page.is_empty() {
                self.keepalive_at = Instant::now() + self.app.limits.keepalive;
                return self.told(page);
            }
            if Instant::now() >= self.keepalive_at {
                self.keepalive_at = Instant::now() + self.app.limits.keepalive;
                return Some(Bytes::from_static(KEEPALIVE.as_bytes()));
            }
            self.wait().await;
        }
        None
    }

    /// A token revoked or expired since the stream began ends the stream.
    async fn recheck(&mut self) -> Option<()> {
        working_token(&self.app, &self.caller.token).await.ok()?;
        self.recheck_at = Instant::now() + self.app.limits.keepalive;
        Some(())
    }

    /// Writes a page of events and moves on behind it.
    fn told(&mut self, page: Vec<Event>) -> Option<Bytes> {
        let mut text = String::new();
        for event in page {
            if event.seq > self.after + 1 {
                self.write(&mut text, &gap(&event, self.after + 1))?;
            }
            self.write(&mut text, &event)?;
            self.after = event.seq;
            self.over = matches!(
                event.kind,
                EventType::RunCompleted | EventType::RunFailed | EventType::RunCancelled
            );
        }
        Some(Bytes::from(text))
    }

    fn write(&self, text: &mut String, event: &Event) -> Option<()> {
        let data = serde_json::to_string(event).ok()?;
        write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind).ok()
    }

    /// Waits until looking again is worth it.
    async fn wait(&mut self) {
        let until = (Instant::now() + self.app.limits.poll).min(self.keepalive_at);
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = closed(&mut self.closing) => return,
                hint = self.hints.recv() => match hint {
                    Ok(Topic::Run(run)) if run == self.run => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return,
                    // No more hints: the poll alone carries on.
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        sleep_until(until).await;
    }
}

/// Waits until the gateway closes; the guard of the value is not held.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Announces that retention removed the events from `from` up to the one before `next`.
fn gap(next: &Event, from: u64) -> Event {
    let to = next.seq - 1;
    let data = json!({ "from": from, "to": to });
    let new = NewEvent::new(EventType::StreamGap, data);
    Event::place(new, next.run, to, next.time, None)
}
