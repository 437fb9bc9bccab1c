//! A run's traffic for reading: a line when a connection ends, and the sum at the end.

use serde_json::Value;
use stockade_domain::{Event, EventType as T, Traffic, traffic::attempts};

use super::{say, style};

/// A connection that ended, in words; nothing for what is none.
pub(super) fn ended(data: &Value) -> Option<String> {
    let details = &data["details"];
    let traffic = Traffic::settled(details).filter(|_| data["kind"] == "egress")?;
    let text = |value: &Value| style::line(value.as_str().unwrap_or_default(), 100);
    let target = style::line(data["target"].as_str().unwrap_or_default(), 60);
    let carried = carried(&traffic);
    let seconds = traffic.duration_ms as f64 / 1000.0;
    Some(match data["outcome"]["error"].as_str() {
        None => style::dim(&format!("network: {target} ended: {carried} in {seconds:.1} s")),
        Some(_) => format!(
            "network: {} ended: {} {}",
            style::bold(&target),
            text(&data["outcome"]["error"]),
            style::dim(&format!("({carried} in {seconds:.1} s)"))
        ),
    })
}

fn carried(traffic: &Traffic) -> String {
    let unread = match traffic.blind_bytes {
        0 => String::new(),
        bytes if bytes == traffic.bytes_up + traffic.bytes_down => ", unread".to_owned(),
        bytes => format!(", {} unread", style::rough(bytes)),
    };
    let (up, down) = (style::rough(traffic.bytes_up), style::rough(traffic.bytes_down));
    format!("{up} up, {down} down{unread}")
}

/// How often something was refused so far, where it was counted and not told each time.
pub(super) fn times(data: &Value) -> String {
    let more = if data["args"]["others"] == true {
        " and others"
    } else {
        ""
    };
    match data["args"]["attempts"].as_u64() {
        Some(times) => format!("{more}, {times} times"),
        None => more.to_owned(),
    }
}

/// The sums of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sums {
    all: Traffic,
    refused: u64,
    limits: Vec<String>,
}

impl Sums {
    /// Adds up a run's events.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut sums = Self::default();
        for event in events {
            let data = &event.data;
            match event.kind {
                T::ActionSettled if data["kind"] == "egress" => {
                    if let Some(traffic) = Traffic::settled(&data["details"]) {
                        sums.all.add(traffic);
                    }
                }
                T::EgressDenied => sums.refused += attempts(&data["args"]),
                T::EgressLimit => sums
                    .limits
                    .push(style::line(data["limit"].as_str().unwrap_or_default(), 80)),
                _ => {}
            }
        }
        sums
    }

    /// Shows them, where there is something to show.
    pub(crate) fn show(&self) {
        for line in self.lines() {
            say(&style::dim(&format!("  {line}")));
        }
    }

    fn lines(&self) -> Vec<String> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "network: {} connections, {}; {} refused",
            self.all.connections,
            carried(&self.all),
            self.refused
        )];
        if !self.limits.is_empty() {
            lines.push(format!("limits met: {}", self.limits.join(", ")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stockade_domain::{NewEvent, RunId, Timestamp};

    use super::*;

    fn event(kind: T, data: Value) -> Event {
        let run = RunId::from_uuid(uuid::Uuid::nil());
        Event::place(NewEvent::new(kind, data), run, 1, Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn sums_count_what_was_only_counted() {
        let details =
            json!({ "bytes_up": 1000, "bytes_down": 2500, "blind_up": 1000, "blind_down": 0, "duration_ms": 1200 });
        let settled = json!({ "kind": "egress", "target": "a.example.com:443", "details": details, "outcome": { "result": "done" } });
        assert_eq!(
            ended(&settled).unwrap(),
            "network: a.example.com:443 ended: 1.0 kB up, 2.5 kB down, 1.0 kB unread in 1.2 s"
        );
        let events = [
            event(T::ActionSettled, settled.clone()),
            event(T::ActionSettled, settled),
            event(T::EgressDenied, json!({ "args": {} })),
            event(T::EgressDenied, json!({ "args": { "attempts": 57, "counted": 56 } })),
            event(T::EgressLimit, json!({ "limit": "env.traffic.bytes_up" })),
        ];
        let expected = [
            "network: 2 connections, 2.0 kB up, 5.0 kB down, 2.0 kB unread; 57 refused",
            "limits met: env.traffic.bytes_up",
        ];
        assert_eq!(Sums::of(&events).lines(), expected);
        assert!(Sums::of(&[]).lines().is_empty());
        assert!(ended(&json!({ "kind": "tool", "details": {} })).is_none());
    }
}
