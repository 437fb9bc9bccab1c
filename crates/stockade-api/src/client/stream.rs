//! Events as they happen, over connections that may break.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, HeaderValue},
};
use stockade_domain::{Event, EventType, RunId};

use super::{Client, ClientError, has_type};
use crate::{sse::SseParser, v1::EVENT_STREAM};

/// The largest event a client takes, in bytes. The gateway's are far smaller.
const MAX_EVENT: usize = 16 << 20;

/// How an [`EventStream`] treats a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// Attempts in a row without one event before it gives up.
    pub attempts: u32,
    /// The first pause; doubles with every attempt in a row.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// A connection this silent is taken for broken. The gateway says something every 15 s.
    pub silence: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            attempts: 12,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            silence: Duration::from_secs(45),
        }
    }
}

/// The events of a run, oldest first, each exactly once, up to the one that ends the run.
///
/// A broken connection is opened again with `Last-Event-ID`, after pauses that grow and are
/// bounded. An error ends the stream: a refusal at once, [`ClientError::Unreachable`] when
/// the gateway stays away or was not there to begin with. A hole that the gateway did not
/// announce with `stream.gap` is [`ClientError::Protocol`], never passed over.
pub struct EventStream {
    inner: BoxStream<'static, Result<Event, ClientError>>,
}

impl Stream for EventStream {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl Client {
    /// The events of a run after a place (0: all), and those to come until it ends.
    pub fn events(&self, run: RunId, after: u64) -> EventStream {
        self.events_with(run, after, Reconnect::default())
    }

    /// As [`Client::events`], with other patience.
    pub fn events_with(&self, run: RunId, after: u64, reconnect: Reconnect) -> EventStream {
        let reader = Reader {
            client: self.clone(),
            run,
            last: after,
            reconnect,
            connection: None,
            ready: VecDeque::new(),
            failures: 0,
            was_connected: false,
            ended: false,
        };
        let inner = futures::stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await?;
            reader.ended |= item.is_err();
            Some((item, reader))
        })
        .boxed();
        EventStream { inner }
    }
}

struct Connection {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    parser: SseParser,
}

/// What one look at the connection gave.
enum Got {
    Events(Vec<Event>),
    /// The gateway says there is nothing more, ever.
    Complete,
    Broken(ClientError),
}

struct Reader {
    client: Client,
    run: RunId,
    last: u64,
    reconnect: Reconnect,
    connection: Option<Connection>,
    ready: VecDeque<Event>,
    failures: u32,
    was_connected: bool,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        loop {
            if self.ended {
                return None;
            }
            while let Some(event) = self.ready.pop_front() {
                if let Some(told) = self.accept(event) {
                    return Some(told);
                }
            }
            match self.look().await {
                Ok(Got::Events(events)) => self.ready.extend(events),
                Ok(Got::Complete) => return None,
                Ok(Got::Broken(cause)) => {
                    self.connection = None;
                    if let Err(error) = self.pause(cause).await {
                        return Some(Err(error));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Passes an event on unless it was told before; refuses one that leaves a hole.
    fn accept(&mut self, event: Event) -> Option<Result<Event, ClientError>> {
        if event.run != self.run {
            return Some(Err(ClientError::Protocol(format!(
                "an event of {} came in the stream of {}",
                event.run, self.run
            ))));
        }
        if event.seq <= self.last {
            return None;
        }
        if event.seq != self.last + 1 && event.kind != EventType::StreamGap {
            return Some(Err(ClientError::Protocol(format!(
                "event {} of {} came where event {} belongs",
                event.seq,
                self.run,
                self.last + 1
            ))));
        }
        self.last = event.seq;
        self.failures = 0;
        self.ended = matches!(
            event.kind,
            EventType::RunCompleted | EventType::RunFailed | EventType::RunCancelled
        );
        Some(Ok(event))
    }

    async fn look(&mut self) -> Result<Got, ClientError> {
        let Some(connection) = &mut self.connection else {
            return self.connect().await;
        };
        let broken = |cause: &str| {
            Ok(Got::Broken(ClientError::Unreachable {
                url: self.client.base.as_str().trim_end_matches('/').to_owned(),
                cause: cause.to_owned(),
            }))
        };
        let chunk = match tokio::time::timeout(self.reconnect.silence, connection.bytes.next()).await {
            Err(_) => return broken("the event stream fell silent"),
            Ok(None) => return broken("the event stream ended before the run did"),
            Ok(Some(Err(error))) => return Ok(Got::Broken(ClientError::unreachable(&self.client.base, &error))),
            Ok(Some(Ok(chunk))) => chunk,
        };
        let messages = connection
            .parser
            .push(&chunk)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        let events: Result<Vec<Event>, _> = messages.iter().map(|m| serde_json::from_str(&m.data)).collect();
        events
            .map(Got::Events)
            .map_err(|error| ClientError::Protocol(format!("an event is not one: {error}")))
    }

    async fn connect(&mut self) -> Result<Got, ClientError> {
        let id = self.run.to_string();
        let mut request = self
            .client
            .request(Method::GET, &["v1", "runs", &id, "events"], &[])?
            .header(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        if self.last > 0 {
            request = request.header("last-event-id", format!("{id}:{}", self.last));
        }
        let sent = tokio::time::timeout(self.reconnect.silence, self.client.send(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if self.may_pass(&error) => return Ok(Got::Broken(error)),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Ok(Got::Broken(ClientError::Unreachable {
                    url: self.client.base.as_str().trim_end_matches('/').to_owned(),
                    cause: "the gateway does not answer".to_owned(),
                }));
            }
        };
        self.was_connected = true;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Got::Complete);
        }
        if !has_type(response.headers(), EVENT_STREAM) {
            return Err(ClientError::Protocol(
                "the gateway answered with something that is not an event stream".to_owned(),
            ));
        }
        self.connection = Some(Connection {
            bytes: response.bytes_stream().boxed(),
            parser: SseParser::new(MAX_EVENT),
        });
        Ok(Got::Events(Vec::new()))
    }

    /// Whether another attempt may fare better. A gateway that was never there is said at
    /// once: somebody is waiting at a terminal.
    fn may_pass(&self, error: &ClientError) -> bool {
        match error {
            ClientError::Unreachable { .. } => self.was_connected,
            ClientError::Problem(problem) => matches!(problem.status, 408 | 429 | 500..=599),
            ClientError::Config(_) | ClientError::Protocol(_) => false,
        }
    }

    async fn pause(&mut self, cause: ClientError) -> Result<(), ClientError> {
        self.failures += 1;
        if self.failures > self.reconnect.attempts {
            return Err(cause);
        }
        let factor = 1u32 << (self.failures - 1).min(16);
        let pause = self.reconnect.first_pause.saturating_mul(factor);
        tokio::time::sleep(pause.min(self.reconnect.longest_pause)).await;
        Ok(())
    }
}
