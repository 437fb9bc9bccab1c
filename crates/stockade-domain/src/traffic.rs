//! What went where: the destinations of a run, from its actions and their settlements.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ActionKind, ActionRecord, receipt::Destination};

/// What connections carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections that were settled.
    pub connections: u64,
    /// Requests that were judged one by one or seen in the clear.
    #[serde(default)]
    pub requests: u64,
    /// Bytes out of the sandbox.
    pub bytes_up: u64,
    /// Bytes into it.
    pub bytes_down: u64,
    /// How many of both the Guard could not see into.
    pub blind_bytes: u64,
    /// Milliseconds from admission to end, all connections together.
    #[serde(default)]
    pub duration_ms: u64,
}

impl Traffic {
    /// What the settlement of a connection says (`details` of `action.settled`); nothing where it is
    /// none of a connection.
    pub fn settled(details: &Value) -> Option<Self> {
        let number = |key: &str| details[key].as_u64().unwrap_or_default();
        details["bytes_up"].as_u64()?;
        Some(Self {
            connections: 1,
            requests: number("requests"),
            bytes_up: number("bytes_up"),
            bytes_down: number("bytes_down"),
            blind_bytes: number("blind_up") + number("blind_down"),
            duration_ms: number("duration_ms"),
        })
    }

    /// Adds what another one carried.
    pub fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.blind_bytes += other.blind_bytes;
        self.duration_ms += other.duration_ms;
    }
}

/// What each action carried, by its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrafficOf(HashMap<String, Traffic>);

impl TrafficOf {
    /// Takes the data of a settlement.
    pub(crate) fn take(&mut self, settled: &Value) {
        let id = settled["action"].as_str();
        if let (Some(id), Some(traffic)) = (id, Traffic::settled(&settled["details"])) {
            self.0.insert(id.to_owned(), traffic);
        }
    }
}

/// How many attempts a record stands for: several where a flood of refusals was only counted.
pub fn attempts(args: &Value) -> u64 {
    args["counted"].as_u64().unwrap_or(1)
}

/// Destinations reached and refused, in the order of their first attempts.
pub(crate) fn destinations(actions: &[ActionRecord], traffic: &TrafficOf) -> Vec<Destination> {
    let mut rows: Vec<Destination> = Vec::new();
    let mut places: HashMap<(&str, String, &str), usize> = HashMap::new();
    for action in actions.iter().filter(|a| a.action.kind == ActionKind::Egress) {
        let same = (
            action.action.target.as_str(),
            format!("{:?}", action.verdict),
            action.rule.as_str(),
        );
        let place = *places.entry(same).or_insert_with(|| {
            rows.push(Destination {
                target: action.action.target.clone(),
                verdict: action.verdict,
                rule: action.rule.clone(),
                count: 0,
                traffic: Traffic::default(),
            });
            rows.len() - 1
        });
        rows[place].count += attempts(&action.action.args);
        if let Some(carried) = traffic.0.get(&action.id.to_string()) {
            rows[place].traffic.add(*carried);
        }
    }
    rows
}
