//! What happened in a run, read event by event. Waiting is waiting for an event, never for time.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use stockade_api::{
    Client, EventStream,
    domain::{ApprovalId, Event, RunId},
};
use tokio::time::timeout;

/// Longest time without any event before a test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// A run's events, as far as they were read.
pub(crate) struct Story {
    stream: EventStream,
    pub(crate) events: Vec<Event>,
}

impl Story {
    pub(crate) fn of(client: &Client, run: RunId) -> Self {
        Self::after(client, run, 0)
    }

    pub(crate) fn after(client: &Client, run: RunId, seq: u64) -> Self {
        Self {
            stream: client.events(run, seq),
            events: Vec::new(),
        }
    }

    async fn next(&mut self) -> Option<&Event> {
        let next = timeout(PATIENCE, self.stream.next()).await;
        let next = next.unwrap_or_else(|_| panic!("nothing happened for {PATIENCE:?} after:\n{self}"));
        let event = next?.unwrap_or_else(|error| panic!("{error} after:\n{self}"));
        self.events.push(event);
        self.events.last()
    }

    /// Reads on to the first event that fits, and gives it.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        loop {
            match self.next().await {
                Some(event) if fits(event) => return event.clone(),
                Some(_) => {}
                None => panic!("the run ended without {what}:\n{self}"),
            }
        }
    }

    /// Reads on to the next event of that type.
    pub(crate) async fn until_type(&mut self, kind: &str) -> Event {
        self.until(kind, |event| event.kind.as_str() == kind).await
    }

    /// Reads on to the next question, and gives its id.
    pub(crate) async fn question(&mut self) -> ApprovalId {
        let asked = self.until_type("approval.requested").await;
        text(&asked, "approval").parse().unwrap()
    }

    /// Reads to the end.
    pub(crate) async fn finish(&mut self) -> &Event {
        while self.next().await.is_some() {}
        self.events.last().expect("a run has events")
    }

    /// Reads to the end, which must be of that type.
    pub(crate) async fn to(&mut self, kind: &str) -> Event {
        let last = self.finish().await.clone();
        assert_eq!(last.kind.as_str(), kind, "the run's story:\n{self}");
        last
    }

    /// Events of a type read so far.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.kind.as_str() == kind).collect()
    }

    /// Events of a type whose data has that text under that key.
    pub(crate) fn with(&self, kind: &str, key: &str, value: &str) -> Vec<&Event> {
        self.all(kind)
            .into_iter()
            .filter(|event| text(event, key) == value)
            .collect()
    }

    /// Everything tools answered, joined.
    pub(crate) fn outputs(&self) -> String {
        let results = self.all("tool.result");
        results
            .iter()
            .map(|event| event.data["output"].as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Fails the test unless the events are 1, 2, 3 ….
    #[track_caller]
    pub(crate) fn assert_dense(&self) {
        for (place, event) in (1..).zip(&self.events) {
            assert_eq!(event.seq, place, "{self}");
        }
    }
}

/// A text of an event's data; empty when it has none.
pub(crate) fn text<'a>(event: &'a Event, key: &str) -> &'a str {
    event.data.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for event in &self.events {
            let data: String = event.data.to_string().chars().take(600).collect();
            writeln!(f, "  {:>3} {:<20} {data}", event.seq, event.kind.as_str())?;
        }
        Ok(())
    }
}
