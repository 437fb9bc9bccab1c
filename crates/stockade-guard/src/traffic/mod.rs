//! How much goes through: limits on a run and on what each rule lets out, counted and kept.
//!
//! | Module | Part |
//! |---|---|
//! | `counter` | one limit, reserved before and settled after; a rate within any minute |
//! | `ledger` | the limits of a rule or of the run, and what one connection counts towards them |
//! | `tolled` | the outer end of a connection: counted, limited, cut |
//! | `body` | contents of requests and answers, counted towards their rule |
//! | `cut` | ending a connection from outside |
//! | `live` | the connections that are open |
//!
//! What counts: bytes as they go over the connection outwards (TLS records and HTTP heads
//! included), of whatever protocol, and the Guard's own look-ups as bytes out. Where requests are
//! judged one by one, a rule counts the heads (as HTTP/1 spells them) and contents of those it let
//! out, and a connection that carried one of them. What the Guard answers itself, and the model
//! gateway, do not count.

mod body;
mod counter;
mod cut;
mod ledger;
mod live;
mod tolled;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value, json};
use stockade_domain::{Action, Event, EventType, TrafficLimits};
use stockade_policy::{Bounds, Policy};
use tokio::sync::Notify;

use crate::session::Denial;

pub(crate) use body::CountedBody;
pub(crate) use counter::Window;
pub(crate) use cut::{Cut, Severed};
pub(crate) use ledger::{Ledger, Reserved, Spent, Tab, Way, reserve, settle};
pub(crate) use live::{Entry, Live};
pub(crate) use tolled::{Tap, Tolled};

impl From<&Spent> for Denial {
    fn from(spent: &Spent) -> Self {
        Self {
            rule: spent.rule(),
            reason: spent.reason(),
        }
    }
}

/// The ledgers of one session.
#[derive(Debug)]
pub(crate) struct Traffic {
    run: Option<Arc<Ledger>>,
    rules: Mutex<HashMap<String, Arc<Ledger>>>,
    /// Whether any rule has limits; where none has, no rule is looked for.
    ruled: bool,
    /// A limit was met.
    pub(crate) met: Notify,
}

impl Traffic {
    pub(crate) fn new(policy: &Policy) -> Self {
        let limits = policy.egress().traffic();
        Self {
            run: (!limits.is_unlimited()).then(|| Arc::new(Ledger::new(Ledger::RUN, limits))),
            rules: Mutex::default(),
            ruled: policy.egress().limits_rules(),
            met: Notify::new(),
        }
    }

    /// Whether anything is limited.
    pub(crate) fn is_limited(&self) -> bool {
        self.run.is_some() || self.ruled
    }

    /// Limits of the rules that let an action out.
    pub(crate) fn bounds(&self, policy: &Policy, action: &Action) -> Vec<Bounds> {
        match self.ruled {
            true => policy.bounds(action),
            false => Vec::new(),
        }
    }

    /// The run's ledger, where it has limits.
    pub(crate) fn run(&self) -> Option<&Arc<Ledger>> {
        self.run.as_ref()
    }

    /// The ledgers of rules with limits.
    pub(crate) fn rules(&self, bounds: &[Bounds]) -> Vec<Arc<Ledger>> {
        let limited = bounds.iter().filter(|bounds| !bounds.limits.is_unlimited());
        limited
            .map(|bounds| self.ledger(&bounds.rule, &bounds.limits))
            .collect()
    }

    fn ledger(&self, id: &str, limits: &TrafficLimits) -> Arc<Ledger> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Ledger::new(id, limits));
        Arc::clone(rules.entry(id.to_owned()).or_insert_with(new))
    }

    fn all(&self) -> Vec<Arc<Ledger>> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        self.run.iter().chain(rules.values()).map(Arc::clone).collect()
    }

    /// Limits met so far, as results spell them.
    pub(crate) fn limits_met(&self) -> Vec<String> {
        let mut met: Vec<String> = self
            .all()
            .iter()
            .flat_map(|ledger| ledger.met())
            .map(|spent| spent.spelled())
            .collect();
        met.sort();
        met
    }

    /// Limits met that this was not asked for yet.
    pub(crate) fn newly_met(&self) -> Vec<Spent> {
        self.all().iter().flat_map(|ledger| ledger.newly_met()).collect()
    }

    /// Counts what earlier sandboxes of the run settled. A connection that was never settled, because
    /// its process died, counts as a connection.
    pub(crate) fn restore(&self, policy: &Policy, events: &[Event]) {
        let mut open: HashMap<&str, (&Event, Action)> = HashMap::new();
        for event in events.iter().filter(|event| event.data["kind"] == "egress") {
            let Some(id) = event.data["action"].as_str() else {
                continue;
            };
            match event.kind {
                EventType::EgressAllowed if event.data["operation"] == "connect" => {
                    if let Ok(action) = serde_json::from_value(event.data.clone()) {
                        open.insert(id, (event, action));
                    }
                }
                EventType::ActionSettled => {
                    open.remove(id);
                    self.restore_settled(policy, &event.data["details"]["charged"]);
                }
                _ => {}
            }
        }
        let one = json!({ "connections": 1 });
        for (_, action) in open.into_values() {
            let rules = self.rules(&self.bounds(policy, &action));
            rules.iter().chain(&self.run).for_each(|ledger| ledger.restore(&one));
        }
    }

    fn restore_settled(&self, policy: &Policy, charged: &Value) {
        for (id, used) in charged.as_object().into_iter().flatten() {
            if id == Ledger::RUN {
                self.run.iter().for_each(|ledger| ledger.restore(used));
            } else if let Some(limits) = policy.egress().limits_of(id) {
                self.ledger(id, &limits).restore(used);
            }
        }
    }
}

/// What a settlement keeps of a connection's tabs: the sum for each ledger.
pub(crate) fn charged<'a>(tabs: impl Iterator<Item = &'a Tab>) -> Map<String, Value> {
    let mut sums: Map<String, Value> = Map::new();
    for tab in tabs {
        let more = tab.told();
        let sum = sums.entry(tab.ledger().id()).or_insert_with(|| json!({}));
        for (key, value) in more.as_object().into_iter().flatten() {
            let before = sum[key.as_str()].as_u64().unwrap_or_default();
            sum[key.as_str()] = json!(before + value.as_u64().unwrap_or_default());
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use stockade_domain::{AgentKind, AgentSpec, Environment, LimitsPatch, NetworkLevel, NewEvent, RunId, Timestamp};

    use super::*;

    fn policy() -> Policy {
        let agent = AgentSpec {
            name: "a".to_owned(),
            description: String::new(),
            kind: AgentKind::Builtin { tools: Vec::new() },
            model: None,
            instructions: None,
            rules: Vec::new(),
            limits: LimitsPatch::default(),
        };
        let mut environment = Environment::named("e", NetworkLevel::Custom);
        let limits = json!({ "bytes_up": 1000, "connections": 10, "requests": 5 });
        environment.traffic = serde_json::from_value(limits.clone()).unwrap();
        let rules = json!([{ "name": "r", "verdict": "allow", "hosts": ["a.example.com"], "protocols": ["tcp"],
            "ports": [9000], "limits": { "bytes_up": 500, "connections": 2 } }]);
        environment.egress = serde_json::from_value(rules).unwrap();
        Policy::compile(&agent, &environment).unwrap()
    }

    #[test]
    fn what_earlier_sandboxes_used_counts() {
        let policy = policy();
        let event = |kind, data| {
            let run = RunId::from_uuid(uuid::Uuid::nil());
            Event::place(NewEvent::new(kind, data), run, 1, Timestamp::UNIX_EPOCH, None)
        };
        let allowed = |id: &str| {
            let args = json!({ "host": "a.example.com", "port": 9000, "protocol": "tcp" });
            let data = json!({ "action": id, "kind": "egress", "operation": "connect", "target": "", "args": args });
            event(EventType::EgressAllowed, data)
        };
        let charged = json!({
            "env.traffic": { "bytes_up": 900, "requests": 5, "connections": 1 },
            "env.egress[0]:r": { "bytes_up": 400, "connections": 1 },
            "env.egress[7]:gone": { "bytes_up": 1 },
        });
        let settled = json!({ "action": "one", "kind": "egress", "details": { "charged": charged } });
        let events = [
            allowed("one"),
            event(EventType::ActionSettled, settled),
            // Its process died.
            allowed("two"),
        ];
        let traffic = Traffic::new(&policy);
        traffic.restore(&policy, &events);
        let run = Tab::new(traffic.run().unwrap());
        assert!(matches!(
            reserve(&[Arc::clone(&run)], Way::Up, 500),
            Reserved::Bytes(100)
        ));
        assert!(run.request().is_err());
        assert!(run.connection().is_ok(), "2 of 10 were used");
        let action = serde_json::from_value(allowed("three").data).unwrap();
        let rules = traffic.rules(&traffic.bounds(&policy, &action));
        assert_eq!(
            Tab::new(&rules[0]).connection().unwrap_err().rule(),
            "env.egress[0]:r.connections"
        );
        let fresh = Traffic::new(&policy);
        let rules = fresh.rules(&fresh.bounds(&policy, &action));
        assert!(Tab::new(&rules[0]).connection().is_ok(), "control");
    }
}
